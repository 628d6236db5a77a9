"""torchvision's CIFAR10."""

from vitarium.data._torchvision import load_torchvision
from vitarium.data.base import DataConfig, DataFolders, Dataset, dataset


@dataset(
    "cifar10",
    fixed=True,
    num_classes=10,
    num_train=50000,
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
    paper="Krizhevsky 2009, Learning multiple layers of features from tiny images",
)
def cifar10(config: DataConfig, folders: DataFolders) -> Dataset:
    """CIFAR-10: photos of objects in 10 classes, 60,000 RGB images of 32 × 32 pixels."""
    return load_torchvision("cifar10", "CIFAR10", config, folders)
