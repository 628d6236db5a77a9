"""Evaluation data: images of a split as a model takes them."""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import count

import torch
from torch import Tensor, nn

from vitarium.core.seeds import derive
from vitarium.data.base import Split
from vitarium.data.batch import Batch
from vitarium.data.class_outputs import ClassOutputs
from vitarium.data.loader import Batches, SplitName
from vitarium.data.preprocessing import Preprocessing
from vitarium.data.splits import stratified, without

_AS_THEY_ARE = ClassOutputs()


class EvalData:
    """A split of a data set: not augmented, normalized, in the same order for every model.

    for batch in examples.batches(size=64):
        model(batch.images)               # float32 [64, c, h, w], on the examples' device
        batch.labels                      # int64 [64]
        examples.pixels(batch.images)     # the same in [0, 1], before normalization
    """

    def __init__(
        self,
        batches: Batches,
        split: SplitName,
        numbers: Tensor | None = None,
        *,
        outputs: ClassOutputs = _AS_THEY_ARE,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        self._batches, self.split = batches, split
        self.outputs = outputs
        """Of the model that they are prepared for: which are the classes."""
        self.preprocessing = preprocessing
        """How they are prepared for it; None: as `batches` does."""
        self.dataset, self.device = batches.dataset, batches.device
        self.input_size = batches.input_size
        """Channels, height and width of an image."""
        self.part: Split = getattr(self.dataset, split)
        """All of it, as it is kept."""
        self.numbers = torch.arange(len(self.part)) if numbers is None else numbers
        """Of the images in it that are looked at, int64 [n]; None: all."""

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def num_classes(self) -> int:
        return self.dataset.num_classes

    @property
    def labels(self) -> Tensor:
        """int64 [n], on the CPU."""
        return self.part.labels[self.numbers]

    def batches(self, size: int = 256) -> Iterator[Batch]:
        """All images once; the last batch may be smaller."""
        return self._batches.plain(self.split, self.numbers, size)

    def endless(self, size: int, seed: int, name: str) -> Iterator[Batch]:
        """Endless batches; every epoch in another order, drawn for that name."""
        for epoch in count():
            yield from self.shuffled(derive(seed, name, "order", epoch)).batches(size)

    def first(self, count: int) -> "EvalData":
        """At most so many of the images, of each class in proportion, the same whenever asked."""
        return self if count >= len(self) else self.partition(count)[0]

    def of_classes(self, classes: Sequence[int]) -> "EvalData":
        """The images with one of these labels, in their order."""
        return self._chosen(torch.isin(self.labels, torch.tensor(classes)).nonzero().flatten())

    def partition(self, count: int) -> "tuple[EvalData, EvalData, Tensor]":
        """`first(count)`, all other images, and the indices in that order, int64 [n]."""
        first = torch.arange(len(self))
        if count < len(self):
            first = stratified(self.labels, count, 0, "measure")
        rest = without(first, len(self))
        return self._chosen(first), self._chosen(rest), torch.cat([first, rest])

    def shuffled(self, seed: int) -> "EvalData":
        """The same images in another order."""
        generator = torch.Generator().manual_seed(seed)
        return self._chosen(torch.randperm(len(self), generator=generator))

    def of(self, split: SplitName) -> "EvalData":
        """Another split of the same data, all of it."""
        return EvalData(
            self._batches, split, outputs=self.outputs, preprocessing=self.preprocessing
        )

    def in_class_order(self, model: nn.Module) -> nn.Module:
        """The model, whose outputs are the data set's classes from now on, in their order; as it
        was where they are already, or where no classes are among them."""
        if self.outputs.numbers and not self.outputs.mismatch:
            numbers = torch.tensor(self.outputs.numbers)
            model.register_forward_hook(partial(_select, numbers))
        return model

    def pixels(self, images: Tensor) -> Tensor:
        """Normalized images [b, c, h, w] -> pixels in [0, 1] of that shape."""
        return self._batches.pixels(images)

    def normalized(self, pixels: Tensor) -> Tensor:
        """Pixels in [0, 1], [b, c, h, w] -> images as the model takes them, of that shape."""
        return self._batches.normalized(pixels)

    def _chosen(self, indices: Tensor) -> "EvalData":
        part = self.of(self.split)
        part.numbers = self.numbers[indices]
        return part


def _select(numbers: Tensor, model: nn.Module, inputs: object, outputs: Tensor) -> Tensor:
    """Outputs [b, outputs] -> those with these numbers, [b, classes]."""
    return outputs.index_select(-1, numbers.to(outputs.device))
