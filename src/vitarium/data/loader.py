"""Batches of a data set: augmented for training, plain for scoring.

What an image becomes depends on the seed, the epoch, the step and the image alone: not on loader
workers, what was drawn before, or models trained beside. Images decoded in memory are gathered and
augmented as whole batches on the device; others are decoded and framed by workers, ahead of that.
"""

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from vitarium.core import seeds
from vitarium.core.errors import InvalidData, InvalidInput, UnknownName
from vitarium.data._decode_ahead import decode_ahead
from vitarium.data._framed_images import Decoded, as_it_is, changed, gather, unpacked
from vitarium.data._to_device import on_device, to_device
from vitarium.data.augmentations._single_image import cut_image
from vitarium.data.augmentations.base import Augmentation, channels
from vitarium.data.base import Dataset, Images, Split
from vitarium.data.batch import Batch
from vitarium.data.expected import Normalization, per_channel

SplitName = Literal["train", "val", "test"]
PREFETCH_BYTES = 2 * 2**30
"""Framed batches that wait in memory take no more than this, per model."""
_SCORED_AT_ONCE = 256


def check_images(split: str, num_images: int | None = None) -> None:
    """Of arguments of that name. Raises UnknownName, and InvalidInput for less than one image."""
    if split not in get_args(SplitName):
        raise UnknownName("split", split, get_args(SplitName))
    if num_images is not None and num_images < 1:
        raise InvalidInput(f"num_images is {num_images}; it has to be 1 at least")


class Batches:
    """All batches of one training run.

    Args:
        input_size: channels, height and width of the images that come out.
        views: augmented views of each image in a batch.
        sampling: each image once in a pass, or drawn so that all classes are as frequent.
        steps_per_epoch: batches of an epoch; None: those of one pass through the images.
        normalization: mean and std of the pixels in [0, 1]; None: the data set's.
        loader_workers: processes that decode and frame images not decoded already; 0: this one.

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
        sampling: Literal["shuffled", "balanced"] = "shuffled",
        steps_per_epoch: int | None = None,
        normalization: Normalization | None = None,
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
        self.sampling, self._steps_per_epoch = sampling, steps_per_epoch
        self.device, self.loader_workers = torch.device(device), loader_workers
        self.normalization = normalization or (dataset.mean, dataset.std)
        self._mean, self._std = (
            torch.tensor(per_channel(values, input_size[0]), device=device).view(-1, 1, 1)
            for values in self.normalization
        )
        self._idle: list[DataLoader[Any]] = []

    @property
    def steps(self) -> int:
        """Training batches in an epoch."""
        return self._steps_per_epoch or self._steps_per_pass

    @property
    def _steps_per_pass(self) -> int:
        """A last one that is not full is left out."""
        return len(self.dataset.train) // self.batch_size

    def train(self, epoch: int) -> Iterator[Batch]:
        """The batches of an epoch, in an order of its own."""
        for batch in stacked_batches([self], epoch):
            yield batch.of_model(0)

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

    # Two kinds of random streams, each begun anew from its name: which images make which batch, by
    # epoch; and what they are augmented by, by epoch and step, in the order of the batch and the
    # second views after all first ones. A stream draws all its numbers at once, row by row, so how
    # many an augmentation takes, and in which order, is part of every trained model's bits.

    def order(self, epoch: int) -> Tensor:
        """Numbers of the images in each batch of an epoch (from 1), int64 [steps, batch_size]."""
        if self._steps_per_epoch is None:
            return self._pass(epoch)
        steps = np.arange((epoch - 1) * self.steps, epoch * self.steps)
        passes, rows = np.divmod(steps, self._steps_per_pass)
        batches = [self._pass(int(p) + 1)[rows[passes == p]] for p in np.unique(passes)]
        return torch.cat(batches)

    def _pass(self, number: int) -> Tensor:
        """Of a pass through the images (from 1), int64 [steps of a pass, batch_size]."""
        order = torch.Generator().manual_seed(seeds.derive(self.seed, "order", number))
        labels, repeats = self.dataset.train.labels, self.augmentation.repeats
        if self.sampling == "balanced":
            chances = 1 / labels.bincount().double()
            count = -(-len(labels) // repeats)
            numbers = torch.multinomial(chances[labels], count, replacement=True, generator=order)
        else:
            numbers = torch.randperm(len(labels), generator=order)
        numbers = numbers.repeat_interleave(repeats)
        count = self._steps_per_pass * self.batch_size
        return numbers[:count].view(-1, self.batch_size)

    def numbers(self, epoch: int, step: int) -> Tensor:
        """What the images of a batch are augmented by, float64 [views * batch_size, numbers]."""
        return self._drawn(self.views, self.augmentation.numbers, epoch, step)

    def other_numbers(self, epoch: int, step: int) -> dict[str, Tensor]:
        """What other views are made by, float64 [count * batch_size, numbers] by name."""
        return {
            name: self._drawn(views.count, views.numbers, epoch, step, name)
            if views.numbers
            else self.numbers(epoch, step)
            for name, views in self.augmentation.other_views.items()
        }

    def _drawn(self, views: int, numbers: int, *step: int | str) -> Tensor:
        stream = torch.Generator().manual_seed(seeds.derive(self.seed, "augmentation", *step))
        shape = (views * self.batch_size, numbers)
        return torch.rand(shape, dtype=torch.float64, generator=stream)

    def normalized(self, images: Tensor) -> Tensor:
        """Pixels [..., c, h, w] in [0, 1] -> the same, as a model takes them."""
        return (images - self._mean).div_(self._std)

    def pixels(self, images: Tensor) -> Tensor:
        """The inverse of `normalized`: [..., c, h, w] -> the same, in [0, 1]."""
        return images * self._std + self._mean

    def renormalizes(self, to: Normalization | None) -> Callable[[Tensor], Tensor]:
        """What makes of images as they come [..., c, h, w] those of another mean and std.

        Where these are the same, or None, the images stay as they are, to the bit.
        """
        if to is None:
            return lambda images: images
        mean, std = (torch.tensor(values, device=self.device).view(-1, 1, 1) for values in to)
        if torch.equal(mean, self._mean) and torch.equal(std, self._std):
            return lambda images: images
        return lambda images: (self.pixels(images) - mean) / std

    def framed(self, epoch: int, order: Tensor) -> Iterator[dict[str, Tensor]]:
        """Framed batches of images to decode, by the name of the view; the objective's own views
        have none (""): float [views * batch_size, c, h, w] in [0, 1]."""
        which = [(epoch, step, chosen) for step, chosen in enumerate(order.numpy())]
        apart = copy(self)
        apart._idle = []  # no cycle with its loaders: torch waits 5 s for workers of garbage
        source = Decoded(self.dataset.train, apart._cut_framed)
        if not self.loader_workers:
            yield from map(self._pixels, map(source.__getitems__, which))
            return
        # Workers stay for the next epoch; two epochs at a time have workers of their own, since
        # a loader that is iterated anew forgets where it was.
        loader = self._idle.pop() if self._idle else self._loader(source, [], stay=True)
        loader.batch_sampler[:] = which  # type: ignore[index]
        try:
            yield from map(self._pixels, loader)
        finally:
            self._idle.append(loader)

    def _cut_framed(self, images: Images, which: tuple[int, int, Any]) -> dict[str, list[Tensor]]:
        """Of (epoch, step, numbers of the images): all first views before all second ones."""
        epoch, step, chosen = which
        drawn = {"": self.numbers(epoch, step)} | self.other_numbers(epoch, step)
        frames = {"": self.augmentation.frame}
        frames |= {name: views.frame for name, views in self.augmentation.other_views.items()}
        by_view = {name: n.unflatten(0, (-1, len(chosen))) for name, n in drawn.items()}
        cut: dict[str, list[list[Tensor]]] = {n: [[] for _ in each] for n, each in by_view.items()}
        for index, image in enumerate(decode_ahead(images, chosen.tolist())):
            for name, numbers in by_view.items():
                for view, images_of_view in enumerate(cut[name]):
                    frame = frames[name](numbers[view, index][None], *image.shape[-2:])
                    images_of_view.append(cut_image(frame, image))
        return {name: [image for view in views for image in view] for name, views in cut.items()}

    def _cut_plain(self, images: Images, chosen: Any) -> dict[str, list[Tensor]]:
        plain, decoded = self.augmentation.plain, decode_ahead(images, chosen.tolist())
        return {"": [cut_image(plain(*image.shape[-2:]), image) for image in decoded]}

    def _plain(self, part: Split, chosen: list[Tensor]) -> Iterator[Tensor]:
        """The images to score in their frames, float [n, c, h, w]."""
        if isinstance(part.images, Tensor):
            pixels = on_device(self.device, part.images)
            frame = self.augmentation.plain(*pixels.shape[-2:])
            for numbers in chosen:
                yield frame.cut(gather(pixels, numbers, self.device))
            return
        source, which = Decoded(part, self._cut_plain), [numbers.numpy() for numbers in chosen]
        here = map(source.__getitems__, which)
        batches = self._loader(source, which) if self.loader_workers else here
        yield from (self._pixels(views)[""] for views in batches)

    def _loader(self, source: Decoded, chosen: list[Any], stay: bool = False) -> DataLoader[Any]:
        """With as many batches ready as the memory allows, up to four for each worker."""
        others = self.augmentation.other_views.values()
        pixels = self.views * self.batch_size * int(np.prod(self.input_size))
        pixels += self.batch_size * sum(views.count * int(np.prod(views.size)) for views in others)
        batch_bytes = max(pixels, _SCORED_AT_ONCE * int(np.prod(self.input_size)))
        ready = max(1, min(4, PREFETCH_BYTES // (batch_bytes * self.loader_workers)))
        return DataLoader(
            source,  # type: ignore[arg-type]
            batch_sampler=chosen,
            num_workers=self.loader_workers,
            prefetch_factor=ready,
            collate_fn=as_it_is,
            pin_memory=self.device.type == "cuda",
            persistent_workers=stay,
            generator=torch.Generator(),  # so that the loader draws nothing from the global one
        )

    def _pixels(self, views: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: unpacked(pixels, self.device) for name, pixels in views.items()}

    def _targets(self, labels: Tensor) -> Tensor:
        is_hot = labels.dtype == torch.bool  # several labels
        return (labels if is_hot else F.one_hot(labels, self.dataset.num_classes)).float()


def stacked_batches(members: Sequence[Batches], epoch: int) -> Iterator[Batch]:
    """The batches of an epoch for several models on the same data, made as one.

    Each model's are those that it would have by itself. They differ in their seeds alone. Yields
    images [k, views * batch_size, *input_size], labels [k, batch_size, ...], targets [k,
    batch_size, num_classes] and other views [k, count * batch_size, *size], of k models.
    """
    first = members[0]
    augmentation, train = first.augmentation, first.dataset.train
    orders = torch.stack([member.order(epoch) for member in members], dim=1)
    pixels = on_device(first.device, train.images) if isinstance(train.images, Tensor) else None
    streams = [member.framed(epoch, orders[:, k]) for k, member in enumerate(members)]
    frames = {"": augmentation.frame}
    frames |= {name: views.frame for name, views in augmentation.other_views.items()}
    for step, chosen in enumerate(orders):
        numbers = torch.stack([member.numbers(epoch, step) for member in members])
        drawn = {"": numbers}
        for name in augmentation.other_views:
            by_member = [member.other_numbers(epoch, step)[name] for member in members]
            drawn[name] = torch.stack(by_member)
        if pixels is not None:
            views = {}
            for name, of_views in drawn.items():
                frame = frames[name](of_views.flatten(0, 1), *pixels.shape[-2:])
                indices = chosen.repeat(1, of_views.shape[1] // chosen.shape[1]).flatten()
                views[name] = frame.cut(gather(pixels, indices, first.device))
        else:
            decoded = [next(stream) for stream in streams]
            views = {name: torch.cat([each[name] for each in decoded]) for name in drawn}
        images = first.normalized(changed(augmentation, views.pop(""), numbers))
        others = {}
        for name, framed in views.items():
            change, of_views = augmentation.other_views[name].change, drawn[name]
            normalized = first.normalized(change(framed, of_views.flatten(0, 1)))
            others[name] = normalized.unflatten(0, of_views.shape[:2])
        labels = to_device(train.labels[chosen], first.device)
        mixed, targets = augmentation.mix(
            images.unflatten(0, numbers.shape[:2]), first._targets(labels), numbers
        )
        yield Batch(mixed, labels, targets, other_views=others)
