"""scikit-learn's digits: 1,797 images of 8 × 8 pixels, inside the package."""

import numpy as np
import torch

from vitarium.data.base import DataConfig, DataFolders, Dataset, dataset
from vitarium.data.splits import with_splits, with_test_split

MEAN, STD = (0.305,), (0.376,)


@dataset(
    "digits",
    paper="Alpaydin & Kaynak 1998, UCI, Optical Recognition of Handwritten Digits",
    fixed=True,
    num_classes=10,
    num_train=1438,
    mean=MEAN,
    std=STD,
)
def digits(config: DataConfig, folders: DataFolders) -> Dataset:
    """scikit-learn's handwritten digits: 1,797 gray images of 8 × 8 pixels; no download needed."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)  # the source counts to 16
    images, labels = torch.from_numpy(pixels).unsqueeze(1), torch.from_numpy(bunch.target).long()
    parts = with_test_split(images, labels)
    return with_splits("digits", tuple("0123456789"), config, *parts, mean=MEAN, std=STD)
