"""torchvision's CIFAR100."""

from vitarium.data._torchvision import load_torchvision
from vitarium.data.base import DataConfig, DataFolders, Dataset, dataset


@dataset(
    "cifar100",
    fixed=True,
    num_classes=100,
    num_train=50000,
    mean=(0.5071, 0.4865, 0.4409),
    std=(0.2673, 0.2564, 0.2762),
    paper="Krizhevsky 2009, Learning multiple layers of features from tiny images",
)
def cifar100(config: DataConfig, folders: DataFolders) -> Dataset:
    """CIFAR-100: photos of objects in 100 classes, 60,000 RGB images of 32 × 32 pixels."""
    return load_torchvision("cifar100", "CIFAR100", config, folders)
