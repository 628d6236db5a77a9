"""torchvision's CIFAR100."""

from vitarium.data._torchvision import load_torchvision
from vitarium.data.base import DataConfig, DataFolders, Dataset, dataset

MEAN, STD = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)


@dataset(
    "cifar100",
    fixed=True,
    num_classes=100,
    num_train=50000,
    mean=MEAN,
    std=STD,
    paper="Krizhevsky 2009, Learning multiple layers of features from tiny images",
)
def cifar100(config: DataConfig, folders: DataFolders) -> Dataset:
    """Objects and animals of 100 classes, 32 × 32 RGB (Krizhevsky 2009)."""
    from torchvision.datasets import CIFAR100

    return load_torchvision("cifar100", CIFAR100, config, folders, mean=MEAN, std=STD)
