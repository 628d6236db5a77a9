"""The contract of data sets: three splits of images and labels, found on this machine."""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor

from vitarium.core.cache import cache_folder
from vitarium.core.config import Config
from vitarium.core.errors import DataNotFound
from vitarium.core.filenames import user_path
from vitarium.core.parameters import parameter
from vitarium.core.registry import contract, register


class DataConfig(Config):
    """Base of a data set's configuration: how its training images are split."""

    val_fraction: float = Field(0.1, gt=0, lt=1)
    """Share of the training images used for validation, where the data set has no validation
    split."""
    split_seed: NonNegativeInt = 0
    """Random seed of the choice of validation images and, with `train_limit`, of training
    images."""
    train_limit: PositiveInt | None = None
    """Largest number of training images to use; none: all of them."""
    train_fraction: float = Field(1.0, gt=0, le=1)
    """Share of the training images to use, each class in proportion, chosen by `split_seed`."""
    train_classes: tuple[NonNegativeInt, ...] | None = Field(None, min_length=1)
    """Classes, by number, whose training images are used; none: all. A model keeps an output for
    every class, and validation and test images are those of all."""
    imbalance: float = Field(1.0, ge=1)
    """How many times the first class has the training images of the last; between them the numbers
    fall exponentially (Cui et al. 2019, arXiv 1901.05555)."""
    imbalance_seed: NonNegativeInt = 0
    """Random seed of the choice of images that an imbalance leaves."""
    label_noise: float = Field(0.0, ge=0, le=1)
    """Share of the training images whose label is replaced by a wrong one."""
    label_noise_kind: Literal["symmetric", "pairs"] = "symmetric"
    """Which label is wrong: any of the other classes (symmetric), or the next class, after the last
    the first (pairs; Han et al. 2018, arXiv 1804.06872)."""
    label_noise_seed: NonNegativeInt = 0
    """Random seed of the choice of images with wrong labels, and of these labels."""


class OwnDataConfig(DataConfig):
    """Base for data that vitarium knows nothing of: what it is like is declared."""

    num_classes: PositiveInt | None = None
    """Number of classes; if given, a plan can be made without the data, and the data are checked
    against it."""
    num_train: PositiveInt | None = None
    """Number of training images, before validation images are taken from them; checked like
    num_classes."""
    num_val: PositiveInt | None = None
    """Number of validation images, for data with a validation split of their own; checked like
    num_classes."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Mean of each channel, of pixels in [0, 1]; default: ImageNet's."""
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """Standard deviation of each channel, of pixels in [0, 1]; default: ImageNet's."""


class Images(Protocol):
    """Images by number: uint8 [c, h, w], decoded when they are asked for, or a tensor of them.

    Where they have `thread_safe` (True), several threads may ask for them at a time.

    With a `fingerprint`, a text that changes with what they are, those that are decoded are decoded
    once and kept, where they are of one size and not too many.
    """

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Tensor: ...


@dataclass(frozen=True)
class Split:
    """Images, and their classes as int64 [n]; of images with several labels bool [n, classes]."""

    images: Images
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def is_multilabel(self) -> bool:
        """Whether an image may have several labels, or none."""
        return self.labels.ndim == 2

    def class_counts(self, num_classes: int) -> Tensor:
        """How many images have each label: int64 [num_classes]"""
        if self.is_multilabel:
            return self.labels.sum(0)
        return self.labels.bincount(minlength=num_classes)

    def select(self, indices: Sequence[int] | Tensor) -> "Split":
        """The images with these numbers, int64 [n], in that order."""
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
    def thread_safe(self) -> bool:
        return getattr(self.images, "thread_safe", False)

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

    @property
    def is_multilabel(self) -> bool:
        """Whether its images may have several labels, or none."""
        return self.train.is_multilabel


@dataclass(frozen=True)
class DataFolders:
    """Where data sets are looked for, and the folder into which they are downloaded."""

    data_dir: Path | None = None
    may_download: bool = True
    """Otherwise, what is not on this machine is DataNotFound."""

    @property
    def all(self) -> list[Path]:
        """The folder that was given, $VITARIUM_DATA, and the cache, in that order."""
        named = (self.data_dir, os.environ.get("VITARIUM_DATA"))
        return [*(user_path(folder) for folder in named if folder), cache_folder() / "data"]

    @property
    def writable(self) -> Path:
        """The first that can be written to, or made: downloads and unpacked files go there."""
        return next((folder for folder in self.all if _writable(folder)), self.all[-1])

    def find(self, name: str) -> Path | None:
        """The first folder of that name; an absolute path stands for itself."""
        paths = [folder / name for folder in self.all]
        return next((path for path in paths if os.access(path, os.F_OK) and path.is_dir()), None)

    def require(self, name: str, kind: str, content: str) -> Path:
        """As `find`. Raises DataNotFound, which says what such a folder has to hold."""
        if (path := self.find(name)) is not None:
            return path
        looked_for = ", ".join(str(folder / name) for folder in self.all)
        raise DataNotFound(
            f"{kind} '{name}' is not there; looked for {looked_for}. It has to hold {content}; "
            f"name its parent: {parameter('data_dir', 'DIR')} or VITARIUM_DATA"
        )


class Expected(NamedTuple):
    """What is known of a data set without its files; None: nothing."""

    num_classes: int | None
    num_train: int | None
    """Training images, before validation images are taken from them."""
    num_val: int | None = None
    """Validation images that are none of these; None: they are taken from these."""


MakeDataset = TypeVar("MakeDataset", bound=Callable[[Any, DataFolders], Dataset])


@contract
def dataset(
    name: str,
    *,
    fixed: bool = False,
    num_classes: int | None = None,
    num_train: int | None = None,
    expected: Callable[[Any], Expected] | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    several_labels: bool = False,
    paper: str = "",
    tiny: Mapping[str, Any] | None = None,
) -> Callable[[MakeDataset], MakeDataset]:
    """Register a data set: a function `(config, folders) -> Dataset`.

    It reads the data set from the first of the folders that has it, or gets it into
    `folders.writable`, if `folders.may_download`. Splits share no image; `with_splits` of
    `data/splits.py` makes validation images as the configuration says. Test images do not depend on
    the configuration. What else the configuration says of training images (train_fraction,
    imbalance, label_noise) is done by `data.load.load`, alike for all data sets.

    Args:
        fixed: the data set is the same on every machine, and its splits are tensors: it is read
            once per machine, then from the cache.
        num_classes, num_train: known without the files, so that a plan can be made; num_train
            counts before validation images are taken from them. None where the configuration
            declares them (OwnDataConfig), or nobody knows.
        expected: `(config)` -> Expected, where these numbers follow from the configuration.
        mean, std: of the pixels in [0, 1], per channel; as num_classes.
        several_labels: known to have several labels of an image without the files; labels are then
            bool [n, classes].
        paper: authors, year and arXiv number, or an address.
        tiny: settings for the contract tests; None: the defaults.

    It raises DataNotFound that says where it looked and how to get the data, and InvalidData.
    `vitarium.testing.check_dataset(name)` tests all of it.
    """
    return register("dataset", **locals())


def _writable(folder: Path) -> bool:
    absolute = folder.absolute()
    nearest = next(path for path in (absolute, *absolute.parents) if os.access(path, os.F_OK))
    # the mode too: root may write anywhere, but a folder that is marked read-only is left alone
    marked = bool(nearest.stat().st_mode & 0o222)
    return marked and nearest.is_dir() and os.access(nearest, os.W_OK)
