"""The images that a model is measured on, as it takes them."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from vitarium.data.batch import Batch
from vitarium.data.batches import Batches, SplitName
from vitarium.data.dataset import Split
from vitarium.data.splits import stratified


class Examples:
    """A split of a data set: not augmented, normalised, in the same order for every model.

    for batch in examples.batches(size=64):
        model(batch.images)               # float32 [64, c, h, w], on the examples' device
        batch.labels                      # int64 [64]
        examples.pixels(batch.images)     # the same in [0, 1], before they were normalised
    """

    def __init__(self, batches: Batches, split: SplitName) -> None:
        self._batches, self.split = batches, split
        self.dataset = batches.dataset
        self.device = batches.device
        self.input_size = batches.input_size
        """Channels, height and width of an image."""

    def __len__(self) -> int:
        return len(self._part)

    @property
    def num_classes(self) -> int:
        return self.dataset.num_classes

    @cached_property
    def labels(self) -> Tensor:
        """int64 [n], on the CPU."""
        return self._part.labels

    def batches(self, size: int = 256) -> Iterator[Batch]:
        """All images once; the last batch may be smaller."""
        return self._batches.score(self.split, size=size)

    def first(self, count: int) -> "Examples":
        """At most so many of the images, of each class in proportion, the same whenever asked."""
        if count >= len(self):
            return self
        return self._selected(stratified(self.labels, count, 0, "measure"))

    def shuffled(self, seed: int) -> "Examples":
        """The same images in another order."""
        generator = torch.Generator().manual_seed(seed)
        return self._selected(torch.randperm(len(self), generator=generator))

    def of(self, split: SplitName) -> "Examples":
        """Another split of the same data."""
        return Examples(self._batches, split)

    def pixels(self, images: Tensor) -> Tensor:
        """Normalised images -> pixels in [0, 1]."""
        return self._batches.pixels(images)

    def normalised(self, pixels: Tensor) -> Tensor:
        """Pixels in [0, 1] -> images as the model takes them."""
        return self._batches.normalised(pixels)

    def _selected(self, numbers: Tensor) -> "Examples":
        part: dict[str, Any] = {self.split: self._part.select(numbers)}
        dataset = replace(self.dataset, **part)
        return Examples(self._batches.of(dataset), self.split)

    @property
    def _part(self) -> Split:
        part: Split = getattr(self.dataset, self.split)
        return part
