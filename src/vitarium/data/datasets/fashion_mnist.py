"""torchvision's FashionMNIST, also from the files of Debian's package."""

import gzip
import shutil
import tempfile
from pathlib import Path

from vitarium.data._torchvision import load_torchvision
from vitarium.data.base import DataConfig, DataFolders, Dataset, dataset

DEBIAN = Path("/usr/share/datasets/fashion-mnist")


@dataset(
    "fashion_mnist",
    fixed=True,
    num_classes=10,
    num_train=60000,
    mean=(0.2860,),
    std=(0.3530,),
    paper="Xiao et al. 2017, arXiv 1708.07747",
    tiny={"train_limit": 500},
)
def fashion_mnist(config: DataConfig, folders: DataFolders) -> Dataset:
    """Fashion-MNIST: articles of clothing in 10 classes, 70,000 gray images of 28 × 28 pixels."""
    return load_torchvision(
        "fashion_mnist",
        "FashionMNIST",
        config,
        folders,
        unpack=_unpack if DEBIAN.is_dir() else None,
        also=f"On Debian: apt install dataset-fashion-mnist, which fills {DEBIAN}.",
    )


def _unpack(folder: Path) -> None:
    """Unpack Debian's files where torchvision looks: each is written beside and renamed, since
    several processes may do so, and a failed download leaves the folder behind."""
    raw = folder / "FashionMNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=raw) as beside:
        for packed in sorted(DEBIAN.glob("*.gz")):
            written = Path(beside) / packed.stem
            with gzip.open(packed) as source, written.open("wb") as target:
                shutil.copyfileobj(source, target)
            written.replace(raw / packed.stem)
