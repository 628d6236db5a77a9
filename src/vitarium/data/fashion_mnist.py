"""torchvision's FashionMNIST, also from the files of Debian's package."""

import gzip
import os
import shutil
from pathlib import Path

from vitarium.data.dataset import DataConfig, DataFolders, Dataset
from vitarium.data.torchvision_source import load_torchvision
from vitarium.registry import dataset

MEAN, STD = (0.2860,), (0.3530,)
DEBIAN = Path("/usr/share/datasets/fashion-mnist")


@dataset("fashion_mnist", config=DataConfig, num_classes=10, num_train=60000)
def fashion_mnist(config: DataConfig, folders: DataFolders) -> Dataset:
    """Articles of clothing, 28 × 28 gray (Xiao et al. 2017, arXiv 1708.07747)."""
    from torchvision.datasets import FashionMNIST

    if DEBIAN.is_dir() and folders.find("FashionMNIST/raw") is None:
        _unpack(folders.writable / "FashionMNIST" / "raw")
    return load_torchvision(
        "fashion_mnist",
        FashionMNIST,
        config,
        folders,
        mean=MEAN,
        std=STD,
        also="On Debian: apt install dataset-fashion-mnist.",
    )


def _unpack(raw: Path) -> None:
    """Unpack Debian's files where torchvision looks; several processes may do so at a time."""
    beside = raw.with_name(f".raw.{os.getpid()}")
    beside.mkdir(parents=True, exist_ok=True)
    for packed in sorted(DEBIAN.glob("*.gz")):
        with gzip.open(packed) as source, (beside / packed.stem).open("wb") as target:
            shutil.copyfileobj(source, target)
    try:
        beside.rename(raw)
    except OSError:  # another process was first
        shutil.rmtree(beside)
