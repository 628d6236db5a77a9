"""Data sets: three splits of images and labels, found on this machine."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor

from vitarium.core.cache import cache_folder
from vitarium.core.config import Config
from vitarium.core.errors import InvalidData
from vitarium.core.file_faults import reading
from vitarium.core.registry import Section
from vitarium.data import _image_cache as decoded
from vitarium.data.splits import stratified, without


class DataConfig(Config):
    """Base of a data set's configuration: how its training images are split."""

    val_fraction: float = Field(0.1, gt=0, lt=1)
    """Share of the training images that validates, where the data set has no such split."""
    split_seed: NonNegativeInt = 0
    """Decides which; and, with `train_limit`, which training images are used."""
    train_limit: PositiveInt | None = None
    """Train on at most so many images."""


class OwnDataConfig(DataConfig):
    """Base for data that vitarium knows nothing of: what it is like is declared."""

    num_classes: PositiveInt | None = None
    """Lets a plan be made without the data; checked against it."""
    num_train: PositiveInt | None = None
    """Training images, before validation images are taken from them; as num_classes."""
    num_val: PositiveInt | None = None
    """Validation images, of data that have them apart from the training images; as num_classes."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Of the pixels in [0, 1], per channel; ImageNet's unless given."""
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


RESIDENT_BYTES = 4 * 2**30
"""Images of one size that take no more than this when decoded, per split, are decoded once."""


class Images(Protocol):
    """Images by number: uint8 [c, h, w], decoded when they are asked for, or a tensor of them.

    Those that are decoded may have a `fingerprint`, a text that changes with what they are: then
    they are decoded once and kept, where they are of one size and not too many.
    """

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Tensor: ...


@dataclass(frozen=True)
class Split:
    """Images, and their classes as int64 [n]."""

    images: Images
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, indices: Sequence[int] | Tensor) -> "Split":
        """The images with these numbers, in that order."""
        chosen = torch.as_tensor(indices, dtype=torch.long)
        if isinstance(self.images, Tensor):
            return Split(self.images[chosen], self.labels[chosen])
        return Split(_Selection(self.images, chosen), self.labels[chosen])


@dataclass(frozen=True)
class _Selection:
    images: Images
    indices: Tensor

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[int(self.indices[index])]

    @property
    def fingerprint(self) -> str | None:
        of_all: str | None = getattr(self.images, "fingerprint", None)
        if of_all is None:
            return None
        return hashlib.sha256(of_all.encode() + self.indices.numpy().tobytes()).hexdigest()


@dataclass(frozen=True)
class Dataset:
    """Splits that share no image; mean and std of the pixels (in [0, 1]) per channel."""

    name: str
    classes: tuple[str, ...]
    train: Split
    val: Split
    test: Split
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def num_classes(self) -> int:
        return len(self.classes)


@dataclass(frozen=True)
class Expected:
    """What is known of a data set without its files; None where nothing is."""

    num_classes: int | None
    num_train: int | None
    """Training images, before validation images are taken from them."""


Normalisation = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of the pixels in [0, 1], per channel of the model's input."""


@dataclass(frozen=True)
class DataFolders:
    """Where data sets are looked for, and the folder into which they are downloaded."""

    given: Path | None = None

    @property
    def all(self) -> list[Path]:
        """The folder that was given, $VITARIUM_DATA, and the cache, in that order."""
        named = os.environ.get("VITARIUM_DATA")
        return [
            *([self.given] if self.given else []),
            *([Path(named)] if named else []),
            cache_folder() / "data",
        ]

    @property
    def writable(self) -> Path:
        """The first that can be written to, or made: downloads and unpacked files go there."""
        return next((folder for folder in self.all if _writable(folder)), self.all[-1])

    def find(self, name: str) -> Path | None:
        """The first folder of that name; an absolute path stands for itself."""
        paths = [folder / name for folder in self.all]
        return next((path for path in paths if os.access(path, os.F_OK) and path.is_dir()), None)


def load(section: Section, data_dir: Path | None = None) -> Dataset:
    """The data set that a blueprint names; read once per process.

    Raises DataNotFound that says where it was looked for and how to get it, and InvalidData where
    it is not what the blueprint says; NotReadable, and DiskFull where it is downloaded.
    """
    with reading(data_dir or DataFolders().writable):
        return _load(section, data_dir)


@lru_cache(maxsize=4)
def _load(section: Section, data_dir: Path | None) -> Dataset:
    fixed = section.plugin.facts.get("fixed", False)
    found = _fixed(section, data_dir) if fixed else _resident(section(DataFolders(data_dir)))
    said = expected(section)
    if said.num_classes is not None and said.num_classes != found.num_classes:
        raise InvalidData(
            f"data set '{section.name}' has {found.num_classes} classes, "
            f"but num_classes says {said.num_classes}"
        )
    return found


def _fixed(section: Section, data_dir: Path | None) -> Dataset:
    """A data set that is the same everywhere: read once per machine, then from the cache."""

    def fill(allocate: decoded.Allocate) -> Mapping[str, Any]:
        read: Dataset = section(DataFolders(data_dir))
        for part in _PARTS:
            split: Split = getattr(read, part)
            for name, values in (("images", split.images), ("labels", split.labels)):
                assert isinstance(values, Tensor)
                allocate(f"{part}-{name}", tuple(values.shape), values.dtype).copy_(values)
        return {"classes": read.classes, "mean": read.mean, "std": read.std}

    kept = decoded.kept(section.name, section.config.factors(), fill)
    train, val, test = (
        Split(kept.tensors[f"{part}-images"], kept.tensors[f"{part}-labels"]) for part in _PARTS
    )
    classes, mean, std = (tuple(kept.about[name]) for name in ("classes", "mean", "std"))
    return Dataset(section.name, classes, train, val, test, mean, std)


def _resident(found: Dataset) -> Dataset:
    """The data set with images that are decoded already, as far as they are few and of one size."""
    train, val, test = (_decoded(found.name, getattr(found, part)) for part in _PARTS)
    return replace(found, train=train, val=val, test=test)


class _SizesDiffer(Exception):
    pass


def _decoded(name: str, split: Split) -> Split:
    images = split.images
    if isinstance(images, Tensor) or not len(images):
        return split
    shape = images[0].shape
    if len(images) * shape.numel() > RESIDENT_BYTES:
        return split
    fingerprint = getattr(images, "fingerprint", None)
    if fingerprint is None:
        return split

    def fill(allocate: decoded.Allocate) -> Mapping[str, Any]:
        target = allocate("images", (len(images), *shape), torch.uint8)
        for number in range(len(images)):
            image = images[number]
            if image.shape != shape:
                raise _SizesDiffer
            target[number] = image
        return {}

    try:
        return Split(decoded.kept(name, fingerprint, fill).tensors["images"], split.labels)
    except _SizesDiffer:
        return split


_PARTS = ("train", "val", "test")


def expected(section: Section) -> Expected:
    """What planning may know of a data set: its plug-in's facts, or what the blueprint declares."""
    facts, config = section.plugin.facts, section.config
    return Expected(
        getattr(config, "num_classes", None) or facts.get("num_classes"),
        getattr(config, "num_train", None) or facts.get("num_train"),
    )


def normalisation(section: Section, channels: int) -> Normalisation | None:
    """What a model of so many channels was trained with on a data set, whose files need not be
    here; None where neither its plug-in nor the blueprint says."""
    facts, config = section.plugin.facts, section.config
    mean = getattr(config, "mean", None) or facts.get("mean")
    std = getattr(config, "std", None) or facts.get("std")
    if mean is None or std is None:
        return None
    return _per_channel(mean, channels), _per_channel(std, channels)


def train_size(num_train: int, config: DataConfig) -> int:
    """Training images that are left of `num_train` when validation images are taken from them.

    None are taken where the configuration declares `num_val`: those are apart already.
    """
    left = num_train - (0 if _declared_val(config) else _num_val(num_train, config))
    return min(left, config.train_limit or left)


def with_splits(
    name: str,
    classes: Sequence[str],
    config: DataConfig,
    *,
    train: Split,
    test: Split,
    val: Split | None = None,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    expected_train: int | None = None,
) -> Dataset:
    """Put a data set together; without validation images, some are taken from the training ones.

    Raises InvalidData if there are not `expected_train` training images, or not as many validation
    images as `config` declares, or a label is none of the classes' numbers.
    """
    _check_count(name, "training images", len(train), "num_train", expected_train)
    own = 0 if val is None else len(val)
    _check_count(name, "validation images of its own", own, "num_val", _declared_val(config))
    for part, split in (("training", train), ("validation", val), ("test", test)):
        if split is not None:
            _check_labels(name, part, split.labels, len(classes))
    if val is None:
        chosen = stratified(train.labels, _num_val(len(train), config), config.split_seed, "val")
        train, val = train.select(without(chosen, len(train))), train.select(chosen)
    if config.train_limit and config.train_limit < len(train):
        train = train.select(
            stratified(train.labels, config.train_limit, config.split_seed, "limit")
        )
    return Dataset(name, tuple(classes), train, val, test, mean, std)


def with_test_split(images: Tensor, labels: Tensor) -> tuple[Split, Split]:
    """Training and test images of a source that has one heap: a fifth of each class is for tests.

    Which is fixed, whatever a blueprint says: no model is ever trained on a test image.
    """
    chosen = stratified(labels, len(labels) // 5, 0, "test")
    heap = Split(images, labels)
    return heap.select(without(chosen, len(labels))), heap.select(chosen)


def _per_channel(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """As images are: colours become the mean of them, gray becomes each of the colours."""
    if len(values) == channels:
        return tuple(values)
    return (sum(values) / len(values),) * channels


def _writable(folder: Path) -> bool:
    absolute = folder.absolute()
    nearest = next(path for path in (absolute, *absolute.parents) if os.access(path, os.F_OK))
    # the mode too: root may write anywhere, but a folder that is marked read-only is left alone
    marked = bool(nearest.stat().st_mode & 0o222)
    return marked and nearest.is_dir() and os.access(nearest, os.W_OK)


def _num_val(num_train: int, config: DataConfig) -> int:
    return max(1, round(num_train * config.val_fraction))


def _declared_val(config: DataConfig) -> int | None:
    return getattr(config, "num_val", None)


def _check_count(name: str, what: str, found: int, field: str, said: int | None) -> None:
    if said is not None and said != found:
        raise InvalidData(f"data set '{name}' has {found} {what}, but {field} says {said}")


def _check_labels(name: str, part: str, labels: Tensor, num_classes: int) -> None:
    wrong = labels[(labels < 0) | (labels >= num_classes)]
    if len(wrong):
        raise InvalidData(
            f"data set '{name}' has the label {wrong[0].item()} among its {part} images, but its "
            f"{num_classes} classes are numbered 0 to {num_classes - 1}"
        )
