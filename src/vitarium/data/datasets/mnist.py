"""torchvision's MNIST."""

from vitarium.data._torchvision import load_torchvision
from vitarium.data.base import DataConfig, DataFolders, Dataset, dataset

MEAN, STD = (0.1307,), (0.3081,)


@dataset(
    "mnist",
    fixed=True,
    num_classes=10,
    num_train=60000,
    mean=MEAN,
    std=STD,
    paper="LeCun et al. 1998, Gradient-based learning applied to document recognition",
)
def mnist(config: DataConfig, folders: DataFolders) -> Dataset:
    """Handwritten digits, 28 × 28 gray (LeCun et al. 1998)."""
    from torchvision.datasets import MNIST

    return load_torchvision("mnist", MNIST, config, folders, mean=MEAN, std=STD)
