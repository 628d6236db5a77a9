"""The devices of this machine."""

import torch

from vitarium.core.errors import InvalidInput
from vitarium.core.numerals import is_number


def find_devices(device: str = "auto") -> tuple[str, ...]:
    """What "auto" (every GPU, or else the CPU), "cpu", "cuda" (every GPU) or "cuda:1" is here.

    Raises InvalidInput for a device that is not there.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    kind, _, number = device.partition(":")
    if device == "cpu" or (device == "auto" and not gpus):
        return ("cpu",)
    if device in ("auto", "cuda") and gpus:
        return tuple(f"cuda:{n}" for n in range(gpus))
    if kind == "cuda" and is_number(number) and int(number) < gpus:
        return (device,)
    if kind == "cuda":
        raise InvalidInput(f"device '{device}': this machine has {gpus} CUDA devices; try cpu")
    raise InvalidInput(f"unknown device '{device}'; known: auto, cpu, cuda, cuda:0, cuda:1, …")
