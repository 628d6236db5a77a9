"""Where and how to train, what happens meanwhile, and what bit-equality depends on."""

import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import torch

from vitarium.core.devices import onednn_is_faster
from vitarium.core.errors import InvalidInput
from vitarium.core.version import installed_version

Precision = Literal["fp32", "tf32", "bf16"]


@dataclass(frozen=True)
class TrainOptions:
    """Where and how to train: what does not belong to the model.

    device: "cpu", "cuda" or "cuda:1".
    loader_workers: processes that decode and frame images, for data that does not lie decoded in
        memory; 0: in the training process.
    data_dir: looked into first for data sets.
    deterministic: the same bits for the same spec, on the same device, software and threads.
    precision: fp32; tf32 (CUDA: float32 with matrix products of 10-bit mantissas); bf16 (autocast:
        weights and optimizer in float32, most of the computation in bfloat16).
    compiled: let torch.compile make one program of the model.
    stacked: train by the stacked computation, even one model; for several it is always so.

    An unfinished model goes on with the precision, compiled and stacked with which it was begun.
    """

    device: str = "cpu"
    loader_workers: int = 0
    data_dir: Path | None = None
    deterministic: bool = True
    precision: Precision = "fp32"
    compiled: bool = False
    stacked: bool = False

    def __post_init__(self) -> None:
        if self.precision not in get_args(Precision):
            precisions = ", ".join(get_args(Precision))
            raise InvalidInput(f"unknown precision '{self.precision}'; known: {precisions}")

    @property
    def autocast(self) -> AbstractContextManager[object]:
        """For forward passes."""
        kind = torch.device(self.device).type
        return torch.autocast(kind, torch.bfloat16, enabled=self.precision == "bf16")

    @property
    def linear_kernel(self) -> Literal["onednn", "torch"]:
        """By whose matrix products linear layers are computed."""
        plain = not (self.compiled or self.stacked) and self.precision == "fp32"
        on_cpu = torch.device(self.device).type == "cpu"
        return "onednn" if on_cpu and plain and onednn_is_faster() else "torch"


class Stepped(NamedTuple):
    """Step `step` of `steps` of an epoch (all from 1) is done."""

    model: str
    epoch: int
    step: int
    steps: int


@dataclass(frozen=True)
class EpochEnded:
    """An epoch (0: the initial state) is on disk, with its metrics."""

    model: str
    epoch: int
    metrics: Mapping[str, float] = field(default_factory=dict)


class Spent(NamedTuple):
    """A process was busy with a model from `start` to `end` (seconds since 1970).

    `what` is set-up, train, score or write; a stack is named by its first model.
    """

    model: str
    worker: str
    what: str
    start: float
    end: float
    epoch: int | None = None


class Remarked(NamedTuple):
    """Something that the user may want to know of a model before it ends, e.g. a collapse."""

    model: str
    text: str


TrainEvent = Stepped | EpochEnded | Spent | Remarked
Report = Callable[[TrainEvent], None]


@contextmanager
def numerics(options: TrainOptions) -> Iterator[None]:
    """Inside, torch computes as the options say; outside, nothing has changed."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    products = torch.get_float32_matmul_precision()
    torch.use_deterministic_algorithms(options.deterministic)
    torch.set_float32_matmul_precision("high" if options.precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic)
        torch.set_float32_matmul_precision(products)


def software(options: TrainOptions) -> dict[str, str]:
    """Versions, device, threads, precision and kernels; stored beside a model's weights."""
    packages = ("vitarium", "torch", "torchvision", "timm", "numpy", "safetensors")
    if torch.device(options.device).type == "cuda":
        device = torch.cuda.get_device_name(options.device)
    else:
        device = f"cpu {platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    return {
        **{package: installed_version(package) for package in packages},
        "python": platform.python_version(),
        "device": device,
        "threads": str(torch.get_num_threads()),
        "precision": options.precision,
        "compiled": str(options.compiled),
        "stacked": str(options.stacked),
        "linear_kernel": options.linear_kernel,
    }
