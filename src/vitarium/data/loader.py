"""Batches of a data set: augmented for training, plain for scoring.

What an image becomes depends on the seed, the epoch, the step and the image alone, so neither the
number of loader workers, nor what was drawn before, nor the other models that are trained beside
change a batch.

Images that lie decoded in memory are gathered and augmented as whole batches on the training
device. Those that have to be decoded are decoded and framed by loader workers, a few batches
ahead, and augmented further in the same way.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torch.utils.weak import WeakIdKeyDictionary

from vitarium.core import seeds
from vitarium.core.errors import InvalidData
from vitarium.data._to_device import to_device
from vitarium.data.augmentations.base import Augmentation, channels
from vitarium.data.base import Dataset, Split
from vitarium.data.batch import Batch

SplitName = Literal["train", "val", "test"]
PREFETCH_BYTES = 2 * 2**30
"""Framed batches that wait in memory take no more than this, per model."""
_SCORED_AT_ONCE = 256
_SHARE_OF_GPU = 0.1


class Batches:
    """All batches of one training run.

    Args:
        input_size: channels, height and width that the model takes.
        seed: root of order, augmentation and mixing.
        views: augmented views of each image in a batch.
        device: where batches are made and used.
        loader_workers: processes that decode and frame images which are not decoded already; 0:
            this one.

    Raises InvalidData where the training split has less than one batch.
    """

    def __init__(
        self,
        dataset: Dataset,
        augmentation: Augmentation,
        input_size: tuple[int, int, int],
        batch_size: int,
        seed: int,
        *,
        views: int = 1,
        device: str = "cpu",
        loader_workers: int = 0,
    ) -> None:
        if len(dataset.train) < batch_size:
            raise InvalidData(
                f"a batch of {batch_size} images is more than the {len(dataset.train)} training "
                f"images of '{dataset.name}'; choose a smaller batch_size"
            )
        self.dataset, self.augmentation, self.batch_size = dataset, augmentation, batch_size
        self.input_size, self.seed, self.views = input_size, seed, views
        self.device, self.loader_workers = torch.device(device), loader_workers
        shape = (-1, 1, 1)
        self._mean = torch.tensor(dataset.mean, device=device).view(shape)
        self._std = torch.tensor(dataset.std, device=device).view(shape)
        if input_size[0] == 1 and len(dataset.mean) == 3:  # gray input of a colour data set
            self._mean, self._std = (
                self._mean.mean(0, keepdim=True),
                self._std.mean(0, keepdim=True),
            )
        self._framed = _Framed(self)
        self._idle: list[DataLoader[Any]] = []

    @property
    def steps(self) -> int:
        """Training batches in an epoch; a last one that is not full is left out."""
        return len(self.dataset.train) // self.batch_size

    def train(self, epoch: int) -> Iterator[Batch]:
        """The batches of an epoch, in an order of its own."""
        for batch in stacked_batches([self], epoch):
            yield Batch(batch.images[0], batch.labels[0], batch.targets[0])

    def score(self, split: SplitName, limit: int | None = None) -> Iterator[Batch]:
        """Every image of a split once, in order and not augmented; with `limit` the first ones."""
        count = len(getattr(self.dataset, split))
        numbers = torch.arange(count if limit is None else min(count, limit))
        return self.plain(split, numbers, max(self.batch_size, _SCORED_AT_ONCE))

    def plain(self, split: SplitName, numbers: Tensor, size: int) -> Iterator[Batch]:
        """The images of a split with these numbers [n], not augmented, in batches of `size`."""
        part: Split = getattr(self.dataset, split)
        chosen = list(numbers.split(size)) if len(numbers) else []
        for indices, pixels in zip(chosen, self._plain(part, chosen), strict=True):
            labels = to_device(part.labels[indices], self.device)
            images = self.normalized(channels(pixels, self.input_size[0]))
            yield Batch(images, labels, self._targets(labels))

    def order(self, epoch: int) -> Tensor:
        """Numbers of the images in each batch of an epoch, int64 [steps, batch_size]."""
        order = torch.Generator().manual_seed(seeds.derive(self.seed, "order", epoch))
        numbers = torch.randperm(len(self.dataset.train), generator=order)
        return numbers[: self.steps * self.batch_size].view(self.steps, self.batch_size)

    def numbers(self, epoch: int, step: int) -> Tensor:
        """What the images of a batch are augmented by, float64 [views * batch_size, numbers]."""
        stream = torch.Generator().manual_seed(seeds.derive(self.seed, "augmentation", epoch, step))
        shape = (self.views * self.batch_size, self.augmentation.numbers)
        return torch.rand(shape, dtype=torch.float64, generator=stream)

    def normalized(self, images: Tensor) -> Tensor:
        """Pixels [..., c, h, w] in [0, 1] -> the same, as a model takes them."""
        return (images - self._mean) / self._std

    def pixels(self, images: Tensor) -> Tensor:
        """The inverse of `normalized`: [..., c, h, w] -> the same, in [0, 1]."""
        return images * self._std + self._mean

    def framed(self, epoch: int, order: Tensor) -> Iterator[Tensor]:
        """Images of each batch in their frames, float [views * batch_size, c, h, w] in [0, 1].

        For images that are decoded as they are needed.
        """
        if not self.loader_workers:
            for step, chosen in enumerate(order):
                yield _unpacked(self._framed.__getitems__((epoch, step, chosen.numpy())), self)
            return
        # Workers stay for the next epoch; two epochs at a time have workers of their own, since
        # a loader that is iterated anew forgets where it was.
        loader = self._idle.pop() if self._idle else self._loader(self._framed, [], stay=True)
        loader.batch_sampler[:] = [  # type: ignore[index]
            (epoch, step, chosen) for step, chosen in enumerate(order.numpy())
        ]
        try:
            for pixels in loader:
                yield _unpacked(pixels, self)
        finally:
            self._idle.append(loader)

    def _plain(self, part: Split, chosen: list[Tensor]) -> Iterator[Tensor]:
        """The images to score in their frames, float [n, c, h, w]."""
        if isinstance(part.images, Tensor):
            pixels = _on(self.device, part.images)
            frame = self.augmentation.plain(*pixels.shape[-2:])
            for numbers in chosen:
                yield frame.cut(_gather(pixels, numbers, self.device))
            return
        source = _Plain(part, self)
        index_arrays = [numbers.numpy() for numbers in chosen]
        batches = (
            self._loader(source, index_arrays)
            if self.loader_workers
            else map(source.__getitems__, index_arrays)
        )
        for loaded in batches:
            yield _unpacked(loaded, self)

    def _loader(
        self, source: "_Framed | _Plain", chosen: list[Any], stay: bool = False
    ) -> DataLoader[Any]:
        return DataLoader(
            source,  # type: ignore[arg-type]
            batch_sampler=chosen,
            num_workers=self.loader_workers,
            prefetch_factor=self._prefetched(),
            collate_fn=_as_loaded,
            pin_memory=self.device.type == "cuda",
            persistent_workers=stay,
            generator=torch.Generator(),  # so that the loader draws nothing from the global one
        )

    def _prefetched(self) -> int:
        """Batches that each loader worker has ready: as many as the memory allows, up to four."""
        images = max(self.views * self.batch_size, _SCORED_AT_ONCE)
        batch_bytes = images * int(np.prod(self.input_size))
        return max(1, min(4, PREFETCH_BYTES // (batch_bytes * self.loader_workers)))

    def _targets(self, labels: Tensor) -> Tensor:
        return F.one_hot(labels, self.dataset.num_classes).float()


def stacked_batches(members: Sequence[Batches], epoch: int) -> Iterator[Batch]:
    """The batches of an epoch for several models on the same data, made as one.

    Each model's are those that it would have by itself. They differ in their seeds alone.

    Yields images [k, views * batch_size, *input_size], labels [k, batch_size] and targets
    [k, batch_size, num_classes] for k models.
    """
    first = members[0]
    orders = torch.stack([member.order(epoch) for member in members], dim=1)
    train = first.dataset.train
    pixels = _on(first.device, train.images) if isinstance(train.images, Tensor) else None
    streams = [member.framed(epoch, orders[:, k]) for k, member in enumerate(members)]
    for step, chosen in enumerate(orders):
        numbers = torch.stack([member.numbers(epoch, step) for member in members])
        flat = numbers.flatten(0, 1)
        if pixels is not None:
            frame = first.augmentation.frame(flat, *pixels.shape[-2:])
            indices = chosen.repeat(1, first.views).flatten()
            images = frame.cut(_gather(pixels, indices, first.device))
        else:
            images = torch.cat([next(stream) for stream in streams])
        images = first.normalized(first.augmentation.change(images, flat))
        labels = to_device(train.labels[chosen], first.device)
        mixed, targets = first.augmentation.mix(
            images.unflatten(0, numbers.shape[:2]), first._targets(labels), numbers
        )
        yield Batch(mixed, labels, targets)


class _Framed:
    """Batches of images that are decoded and framed now, uint8 [views * batch_size, c, h, w]."""

    def __init__(self, batches: Batches) -> None:
        self.split, self.frame = batches.dataset.train, batches.augmentation.frame
        self.numbers, self.views = batches.numbers, batches.views

    def __len__(self) -> int:
        return len(self.split)

    def __getitems__(self, which: tuple[int, int, Any]) -> Tensor:
        """Of (epoch, step, numbers of the images): all first views before all second ones."""
        epoch, step, chosen = which
        drawn = self.numbers(epoch, step).unflatten(0, (self.views, len(chosen)))
        images = [self.split.images[int(number)] for number in chosen]
        return torch.stack(
            [
                _cut(self.frame(drawn[view, index][None], *image.shape[-2:]), image)
                for view in range(self.views)
                for index, image in enumerate(images)
            ]
        )


class _Plain:
    """Batches of images that are decoded now, as they are scored."""

    def __init__(self, split: Split, batches: Batches) -> None:
        self.split, self.frame = split, batches.augmentation.plain

    def __len__(self) -> int:
        return len(self.split)

    def __getitems__(self, chosen: Any) -> Tensor:
        images = [self.split.images[int(number)] for number in chosen]
        return torch.stack([_cut(self.frame(*image.shape[-2:]), image) for image in images])


def _cut(frame: Any, image: Tensor) -> Tensor:
    """One image in its frame, rounded to uint8: a quarter of the bytes to pass on and to keep."""
    cut: Tensor = frame.cut(image[None])[0]
    return (cut * 255).round_().to(torch.uint8)


def _unpacked(pixels: Tensor, batches: Batches) -> Tensor:
    return pixels.to(batches.device, non_blocking=True).float() / 255


def _gather(pixels: Tensor, numbers: Tensor, device: torch.device) -> Tensor:
    """The images of these numbers [n], on the device: [n, c, h, w]"""
    return to_device(pixels[to_device(numbers, pixels.device)], device)


_copies: Any = WeakIdKeyDictionary()


def _on(device: torch.device, pixels: Tensor) -> Tensor:
    """All images of a split on the device where they take little of its memory; else as they are.

    Models that are trained one after the other in a process share the copy.
    """
    if device.type != "cuda":
        return pixels
    total = torch.cuda.get_device_properties(device).total_memory
    if pixels.numel() > _SHARE_OF_GPU * total:
        return pixels
    if pixels not in _copies:
        _copies[pixels] = pixels.to(device)
    copy: Tensor = _copies[pixels]
    return copy


def _as_loaded(batch: Any) -> Any:
    return batch
