"""The environment of a run: versions, device and threads, stored beside a model's weights."""

import platform
from importlib.metadata import PackageNotFoundError, version

import torch

from vitarium.training.options import TrainOptions


def software(options: TrainOptions) -> dict[str, str]:
    """Versions, the device's name, threads and precision: what bit-equality depends on."""
    on_gpu = torch.device(options.device).type == "cuda"
    packages = ("vitarium", "torch", "torchvision", "timm", "numpy", "safetensors")
    return {
        **{name: _version(name) for name in packages},
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name(options.device) if on_gpu else _processor(),
        "threads": str(torch.get_num_threads()),
        "precision": options.precision,
        "compiled": str(options.compiled),
        "stacked": str(options.stacked),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _processor() -> str:
    return f"cpu {platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
