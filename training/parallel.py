"""Several processes under ``torchrun``: the first runs the command, the others take their share of its training.

The first process alone reads the shop, tracks and registers. When it comes to train, it sends its arguments to the
others; every process then runs the same function, on its own share of each step. The device of a process is the one
whose number is its LOCAL_RANK.
"""

import os
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from features.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

LONGEST_WAIT = timedelta(days=7)
"""The others wait so long while the first reads, fits other tiers and evaluates."""


def run(command: Callable[[], None]) -> None:
    """Run the command; under ``torchrun`` in the first process alone, and what it does ``together`` in all of them."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        command()
        return
    import torch
    import torch.distributed.nn  # its functions hold for ever the group that they are imported under, and its threads
    from torch import distributed

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=LONGEST_WAIT)
    try:
        command() if rank() == 0 else _follow()
    except (SystemExit, UserError):
        if rank() == 0:
            _part()
        raise
    _part()


def rank() -> int:
    """The number of this process, from 0."""
    from torch import distributed

    return distributed.get_rank() if distributed.is_initialized() else 0


def n_processes() -> int:
    """How many processes train together."""
    from torch import distributed

    return distributed.get_world_size() if distributed.is_initialized() else 1


def together(function: Callable[..., T], *arguments: Any) -> T:  # noqa: ANN401
    """Call a function of a module in every process with the first one's arguments; the first one's result."""
    if n_processes() > 1:
        from_first(lambda: (function, arguments))
    return function(*arguments)


def from_first(compute: Callable[[], T]) -> T:
    """What the first process computes, in every process."""
    if n_processes() == 1:
        return compute()
    from torch import distributed

    box: list[Any] = [compute() if rank() == 0 else None]
    distributed.broadcast_object_list(box, device="cpu")
    found: T = box[0]
    return found


def add_up(values: "list[Tensor]") -> None:
    """Replace each of some tensors of one type on one device by its sum over the processes."""
    if n_processes() > 1:
        import torch
        from torch import distributed

        joined = torch.cat([value.flatten() for value in values])
        distributed.all_reduce(joined)
        for value, part in zip(values, joined.split([value.numel() for value in values]), strict=True):
            value.copy_(part.view_as(value))


def _follow() -> None:
    while (task := from_first(lambda: None)) is not None:
        function, arguments = task
        function(*arguments)


def _part() -> None:
    """Let the others go, and go with them: a process that leaves first may be aborted on its way out.

    After a fault nothing is said: they may be in the midst of a step, and torchrun ends them.
    """
    from torch import distributed

    if rank() == 0:
        from_first(lambda: None)
    distributed.barrier()
    distributed.destroy_process_group()
