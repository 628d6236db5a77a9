"""Training images as the settings of every data set change them: fewer, of some classes,
long-tailed, mislabeled.

Validation and test images stay as they are. What a stronger setting leaves is part of what a weaker
one leaves, with the same seed, so that models differ in the strength alone.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from vitarium.core.errors import InvalidData
from vitarium.core.seeds import derive
from vitarium.data.base import DataConfig, Dataset, Split
from vitarium.data.splits import fraction_of, stratified

SETTINGS = (
    "train_fraction",
    "train_classes",
    "imbalance",
    "imbalance_seed",
    "label_noise",
    "label_noise_kind",
    "label_noise_seed",
)
"""Of a DataConfig: those of this module."""


def with_training_split(data: Dataset, config: DataConfig) -> Dataset:
    """The data set with other training images: a share of them, of some classes, of classes of
    unequal size, and with wrong labels, in this order.

    Raises InvalidData for a choice of classes, an imbalance or label noise of images with several
    labels, for a class that there is not, and for an imbalance that leaves a class without images.
    """
    train = data.train
    if train.is_multilabel:
        for setting, off in (("train_classes", None), ("imbalance", 1), ("label_noise", 0)):
            if getattr(config, setting) != off:
                fault = f"images of '{data.name}' have several labels"
                raise InvalidData(f"{setting}: {fault}, and it changes single ones; leave it out")
    if config.train_fraction < 1:
        count = fraction_of(len(train), config.train_fraction)
        train = train.select(stratified(train.labels, count, config.split_seed, "limit"))
    if config.train_classes is not None:
        train = train.select(_of_classes(train.labels, data, config.train_classes))
    if config.imbalance > 1:
        train = train.select(long_tail(train.labels, data, config))
    if config.label_noise:
        train = Split(train.images, noisy_labels(train.labels, data.num_classes, config))
    return data if train is data.train else replace(data, train=train)


def _of_classes(labels: Tensor, data: Dataset, classes: Sequence[int]) -> Tensor:
    """Numbers of the images of these classes, in order: int64 [m], of labels [n]."""
    if unknown := [number for number in classes if number >= data.num_classes]:
        known = f"'{data.name}' has classes 0 to {data.num_classes - 1}"
        raise InvalidData(f"train_classes names class {unknown[0]}, and {known}")
    return torch.isin(labels, torch.tensor(classes)).nonzero().flatten()


def long_tail_counts(largest: int, num_classes: int, imbalance: float) -> list[int]:
    """Images of each class: int(largest * imbalance^(-c / (num_classes - 1))), as of Cui et al.
    2019, arXiv 1901.05555, Sec. 5.1, and the data sets that follow it."""
    last = max(num_classes - 1, 1)
    shares = [(1 / imbalance) ** (c / last) for c in range(num_classes)]
    return [int(largest * share + 1e-9) for share in shares]  # 49 * (1 / 49) is less than 1


def long_tail(labels: Tensor, data: Dataset, config: DataConfig) -> Tensor:
    """Numbers of the images that are left, in order: int64 [m], of labels [n].

    The largest class gives the number of the first; a class with fewer images than its number keeps
    all of them. Raises InvalidData where a class keeps none.
    """
    generator = np.random.default_rng(derive(config.imbalance_seed, "imbalance"))
    sizes = labels.bincount(minlength=data.num_classes)
    counts = long_tail_counts(int(sizes.max()), data.num_classes, config.imbalance)
    _check_counts(counts, data.classes, config)
    values = labels.numpy()
    left = [generator.permutation(np.flatnonzero(values == c))[:n] for c, n in enumerate(counts)]
    return torch.from_numpy(np.sort(np.concatenate(left)))


def _check_counts(counts: Sequence[int], classes: Sequence[str], config: DataConfig) -> None:
    if 0 in counts:
        first = classes[list(counts).index(0)]
        fault = f"imbalance {config.imbalance:g} leaves no training image of class '{first}'"
        raise InvalidData(f"{fault}, of {counts[0]} of the first class; choose a smaller one")


def noisy_labels(labels: Tensor, num_classes: int, config: DataConfig) -> Tensor:
    """Labels [n], of which round(label_noise * n) are wrong, of each class in proportion: [n]"""
    count = round(config.label_noise * len(labels))
    if not count or num_classes == 1:
        return labels
    chosen = stratified(labels, count, config.label_noise_seed, "label noise")
    generator = np.random.default_rng(derive(config.label_noise_seed, "wrong labels"))
    steps = torch.from_numpy(generator.integers(1, num_classes, len(labels)))
    if config.label_noise_kind == "pairs":
        steps = torch.ones_like(steps)
    changed = labels.clone()
    changed[chosen] = (labels[chosen] + steps[chosen]) % num_classes
    return changed
