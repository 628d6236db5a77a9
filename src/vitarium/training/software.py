"""With what a model was trained: it is written down beside its weights."""

import platform
from importlib.metadata import PackageNotFoundError, version

import torch


def software(device: str) -> dict[str, str]:
    """Versions, the device's name and the number of threads: what bit-equality depends on."""
    on_gpu = torch.device(device).type == "cuda"
    packages = ("vitarium", "torch", "torchvision", "timm", "numpy", "safetensors")
    return {
        **{name: _version(name) for name in packages},
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name(device) if on_gpu else _processor(),
        "threads": str(torch.get_num_threads()),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _processor() -> str:
    return f"cpu {platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
