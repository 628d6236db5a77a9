"""Mosaics of another data set's images: images with several labels, of any data with one."""

from typing import Annotated

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor
from torch.nn import functional as F

from vitarium.core.errors import InvalidData
from vitarium.core.registry import Section, SectionOf
from vitarium.core.seeds import derive
from vitarium.data._training_split import with_training_split
from vitarium.data.base import DataConfig, DataFolders, Dataset, Expected, Images, Split, dataset
from vitarium.data.splits import with_splits


class Mosaics(DataConfig):
    """Grids of real images. Those for training, validation and tests are made of the base's images
    for the same, so `val_fraction` is the base's matter; other settings of training images are of
    mosaics here, and of single images in `base`."""

    base: Annotated[Section, SectionOf("dataset")]
    """Data set of the images: a name, or a mapping with a name."""
    grid: int = Field(2, ge=1, le=16)
    """Images in a row, and in a column, of a mosaic."""
    repeats: PositiveInt = 1
    """Mosaics that each image is in."""
    mosaic_seed: NonNegativeInt = 0
    """Random seed of which images come together."""


def _expected(config: Mosaics) -> Expected:
    facts, of_base = config.base.facts, config.base.config
    known = facts["expected"](of_base) if facts.get("expected") else Expected(None, None)
    declared = getattr(of_base, "num_classes", None) or facts.get("num_classes")
    return Expected(declared or known.num_classes, None)


@dataset("mosaics", expected=_expected, several_labels=True, tiny={"base": "digits"})
def mosaics(config: Mosaics, folders: DataFolders) -> Dataset:
    """Mosaics of images of another data set; the labels are all classes that are in one."""
    base = with_training_split(config.base(folders), config.base.config)
    parts = {part: _mosaics(config, base, part) for part in ("train", "val", "test")}
    return with_splits("mosaics", base.classes, config, **parts, mean=base.mean, std=base.std)


def _mosaics(config: Mosaics, base: Dataset, part: str) -> Split:
    """Each image `repeats` times, in an order drawn for each time; what fills no mosaic is left."""
    split: Split = getattr(base, part)
    tiles = config.grid**2
    if len(split) < tiles:
        count = f"'{base.name}' has {len(split)} {part} images"
        raise InvalidData(f"{count}, and a mosaic is of {tiles}; choose a smaller grid")
    generator = np.random.default_rng(derive(config.mosaic_seed, "mosaics", part))
    orders = [generator.permutation(len(split)) for _ in range(config.repeats)]
    per_order = len(split) // tiles
    chosen = np.concatenate([order[: per_order * tiles].reshape(-1, tiles) for order in orders])
    numbers = torch.from_numpy(chosen)
    labels = split.labels
    hot = labels if split.is_multilabel else F.one_hot(labels, base.num_classes).bool()
    return Split(_joined(split.images, numbers, config.grid), hot[numbers].any(1))


def _joined(images: Images, numbers: Tensor, grid: int) -> Images:
    """Images and int64 [n, grid * grid] -> n mosaics; tensors where the images are."""
    if not isinstance(images, Tensor):
        return _Mosaics(images, numbers, grid)
    rows = images[numbers].unflatten(1, (grid, grid))  # [n, row, column, c, h, w]
    return rows.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3).contiguous()


class _Mosaics:
    """Mosaics of images that are decoded when they are asked for."""

    def __init__(self, images: Images, numbers: Tensor, grid: int) -> None:
        self._images, self._numbers, self._grid = images, numbers, grid

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def thread_safe(self) -> bool:
        return getattr(self._images, "thread_safe", False)

    def __getitem__(self, index: int) -> Tensor:
        tiles = [self._images[number] for number in self._numbers[index].tolist()]
        if len(sizes := {tuple(tile.shape) for tile in tiles}) > 1:
            raise InvalidData(f"images of sizes {sorted(sizes)[:4]} make no mosaic: use equal ones")
        return _joined(torch.stack(tiles), torch.arange(len(tiles))[None], self._grid)[0]
