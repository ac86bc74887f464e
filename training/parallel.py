"""Several processes under ``torchrun``: the first runs the command, the others take their share of its training.

The first process alone reads the shop, tracks and registers. When it comes to train, it sends its arguments to the
others; every process then runs the same function, on its own share of each step. The device of a process is the one
whose number is its LOCAL_RANK.
"""

import os
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

LONGEST_WAIT = timedelta(days=7)
"""The others wait so long while the first reads, fits other tiers and evaluates."""


def is_torchrun() -> bool:
    """Whether ``torchrun`` started this process together with others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def rank() -> int:
    """The number of this process, from 0."""
    return int(os.environ.get("RANK", "0")) if is_torchrun() else 0


def n_processes() -> int:
    """How many processes train together."""
    return int(os.environ["WORLD_SIZE"]) if is_torchrun() else 1


def run(command: Callable[[], None]) -> None:
    """Run the command in the first process, and what it sends with ``together`` in all of them."""
    import torch
    from torch import distributed

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=LONGEST_WAIT)
    try:
        if rank():
            _follow()
        else:
            command()
    finally:
        if not rank():
            from_first(None)
        distributed.destroy_process_group()


def together(function: Callable[..., T], *arguments: Any) -> T:  # noqa: ANN401
    """Call a function of a module in every process with the first one's arguments; the first one's result."""
    if is_torchrun():
        from_first((function, arguments))
    return function(*arguments)


def from_first(value: T) -> T:
    """The first process' value, in every process."""
    if not is_torchrun():
        return value
    from torch import distributed

    box = [value]
    distributed.broadcast_object_list(box, device="cpu")
    return box[0]


def add_up(values: "list[Tensor]") -> None:
    """Replace each tensor by its sum over the processes."""
    if is_torchrun():
        from torch import distributed

        for value in values:
            distributed.all_reduce(value)


def _follow() -> None:
    while (task := from_first(None)) is not None:
        function, arguments = task
        function(*arguments)
