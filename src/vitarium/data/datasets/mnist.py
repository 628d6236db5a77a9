"""torchvision's MNIST."""

from vitarium.data._torchvision import load_torchvision
from vitarium.data.base import DataConfig, DataFolders, Dataset, dataset


@dataset(
    "mnist",
    fixed=True,
    num_classes=10,
    num_train=60000,
    mean=(0.1307,),
    std=(0.3081,),
    paper="LeCun et al. 1998, Gradient-based learning applied to document recognition",
)
def mnist(config: DataConfig, folders: DataFolders) -> Dataset:
    """MNIST: handwritten digits, 70,000 gray images of 28 × 28 pixels."""
    return load_torchvision("mnist", "MNIST", config, folders)
