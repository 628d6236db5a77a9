"""The devices of this machine."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

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


@cache
def onednn_is_faster() -> bool:
    """Whether oneDNN multiplies float32 matrices faster than torch by itself, which takes MKL.

    MKL takes AVX2 on processors of other makers than Intel, oneDNN AVX-512 where they have it. A
    fact about the machine and not a measurement, since the bits of a training depend on it.
    """
    if not torch.backends.mkldnn.is_available() or not torch.backends.mkl.is_available():
        return False
    return torch.backends.cpu.get_cpu_capability() == "AVX512" and _cpu_vendor() not in (
        None,
        "GenuineIntel",
    )


def _cpu_vendor() -> str | None:
    """E.g. GenuineIntel or AuthenticAMD; None where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return None
    return next((line.split(":")[1].strip() for line in lines if "vendor_id" in line), None)


def lacks_values(error: Exception) -> bool:
    """Whether an operation failed since tensors of the meta device have no values: what it would do
    on another device is not known."""
    return isinstance(error, NotImplementedError) or "meta" in str(error).lower()


def without_autocast(values: torch.Tensor) -> AbstractContextManager[object]:
    """A context in which what is computed of such values is not rounded to 8 bits."""
    if torch.amp.is_autocast_available(values.device.type):  # not of the meta device
        return torch.autocast(values.device.type, enabled=False)
    return nullcontext()


_INITIALIZING = {
    getattr(torch.Tensor, name)
    for name in ("uniform_", "normal_", "erfinv_", "mul_", "add_", "clamp_", "fill_", "zero_")
}


class _Uninitialized(TorchFunctionMode):
    """Leaves out what would change the values of tensors that have none."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _INITIALIZING and args[0].is_meta:
            return args[0]
        return func(*args, **(kwargs or {}))


@contextmanager
def meta_device() -> Iterator[None]:
    """Models built here take no memory: their tensors have shapes and dtypes, and no values.

    They are not initialized either: in-place operations on that device run in Python, and would
    take four fifths of the time (0.45 s for a ViT-S).
    """
    with torch.device("meta"), _Uninitialized():
        yield
