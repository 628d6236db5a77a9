"""Splits of a data set: which images validate or test, drawn by class and the same everywhere."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vitarium.core.errors import InvalidData
from vitarium.core.seeds import derive
from vitarium.data.base import DataConfig, Dataset, Images, Split


def with_splits(
    name: str,
    classes: Sequence[str],
    config: DataConfig,
    train: Split,
    test: Split,
    *,
    val: Split | None = None,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Dataset:
    """Put a data set together; without validation images, some are taken from the training ones.

    Raises InvalidData if there are not as many training or validation images as `config` declares,
    or a label is none of the classes' numbers.
    """
    _check_count(name, "training images", len(train), "num_train", config)
    num_own_val = 0 if val is None else len(val)
    _check_count(name, "validation images of its own", num_own_val, "num_val", config)
    for part, split in (("training", train), ("validation", val), ("test", test)):
        if split is None:
            continue
        if split.is_multilabel:
            _check_several(name, part, split.labels, len(classes))
            continue
        wrong = split.labels[(split.labels < 0) | (split.labels >= len(classes))]
        if len(wrong):
            raise InvalidData(
                f"data set '{name}' has the label {wrong[0].item()} among its {part} images, but "
                f"its {len(classes)} classes are numbered 0 to {len(classes) - 1}"
            )
    if val is None:
        chosen = stratified(train.labels, num_val(len(train), config), config.split_seed, "val")
        train, val = train.select(without(chosen, len(train))), train.select(chosen)
    if config.train_limit and config.train_limit < len(train):
        limited = stratified(train.labels, config.train_limit, config.split_seed, "limit")
        train = train.select(limited)
    return Dataset(name, tuple(classes), train, val, test, mean, std)


def with_test_split(images: Images, labels: Tensor) -> tuple[Split, Split]:
    """Training and test images of a source without splits: a fifth of each class is for tests.

    images: n of uint8 [c, h, w]; labels: int64 [n]. Which are for tests is fixed, whatever a
    blueprint says: no model is ever trained on a test image.
    """
    chosen = stratified(labels, len(labels) // 5, 0, "test")
    split = Split(images, labels)
    return split.select(without(chosen, len(labels))), split.select(chosen)


def joined(splits: Sequence[Split]) -> Split:
    """The images of several splits, one split after the other."""
    if len(splits) == 1:
        return splits[0]
    labels, parts = torch.cat([split.labels for split in splits]), [s.images for s in splits]
    tensors = [images for images in parts if isinstance(images, Tensor)]
    return Split(torch.cat(tensors) if len(tensors) == len(parts) else _Joined(parts), labels)


@dataclass(frozen=True)
class _Joined:
    parts: Sequence[Images]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __getitem__(self, index: int) -> Tensor:
        for images in self.parts:
            if index < len(images):
                return images[index]
            index -= len(images)
        raise IndexError(index)

    @property
    def fingerprint(self) -> str | None:
        of_parts = [getattr(images, "fingerprint", None) for images in self.parts]
        return None if None in of_parts else " ".join(map(str, of_parts))


def stratified(labels: Tensor, count: int, seed: int, purpose: str) -> Tensor:
    """Numbers of `count` images, in order: int64 [count], of labels [n].

    Each class is there in proportion, to within one image; what rounding leaves over goes to the
    classes that it cut most (largest remainders). Images with several labels, [n, classes], are
    chosen regardless of these.
    """
    generator = np.random.default_rng(derive(seed, "split", purpose))
    if labels.ndim == 2:
        return torch.from_numpy(np.sort(generator.permutation(len(labels))[:count]))
    classes, sizes = np.unique(labels.numpy(), return_counts=True)
    shares = count * sizes / len(labels)
    quotas = np.floor(shares).astype(int)
    most_cut = np.argsort(quotas - shares, kind="stable")
    quotas[most_cut[: count - quotas.sum()]] += 1
    chosen = [
        generator.permutation(np.flatnonzero(labels.numpy() == label))[:quota]
        for label, quota in zip(classes, quotas, strict=True)
    ]
    return torch.from_numpy(np.sort(np.concatenate(chosen)))


def without(chosen: Tensor, count: int) -> Tensor:
    """The numbers below `count` that are not among those chosen [n], in order: [count - n]"""
    rest = torch.ones(count, dtype=torch.bool)
    rest[chosen] = False
    return rest.nonzero()[:, 0]


def fraction_of(count: int, fraction: float) -> int:
    """Images that a share of `count` is; one at least."""
    return max(1, round(count * fraction))


def num_val(num_train: int, config: DataConfig) -> int:
    return fraction_of(num_train, config.val_fraction)


def _check_several(name: str, part: str, labels: Tensor, classes: int) -> None:
    if labels.dtype != torch.bool or labels.shape[1] != classes:
        shape = f"{labels.dtype} {list(labels.shape)}"
        raise InvalidData(
            f"data set '{name}' has the labels {shape} of its {part} images; of images with "
            f"several labels they are bool [n, {classes}]"
        )


def _check_count(name: str, what: str, count: int, field: str, config: DataConfig) -> None:
    declared = getattr(config, field, None)
    if declared is not None and declared != count:
        raise InvalidData(f"data set '{name}' has {count} {what}, but {field} says {declared}")
