"""Which device trains, and why."""

from typing import Literal, NamedTuple

from features.errors import UserError

Choice = Literal["auto", "cpu", "cuda"]


class Device(NamedTuple):
    """A device with the reason for it, as it is printed and tracked."""

    name: Literal["cpu", "cuda"]
    reason: str


def choose(choice: Choice) -> Device:
    """The device to train on.

    Raises UserError when CUDA is asked for and there is none.
    """
    if choice == "cpu":
        return Device("cpu", "asked for")
    import torch

    if torch.cuda.is_available():
        return Device("cuda", f"{torch.cuda.get_device_name()} found")
    if choice == "cuda":
        raise UserError("--device cuda: no CUDA device is available here; use --device cpu or auto")
    return Device("cpu", "no CUDA device found")
