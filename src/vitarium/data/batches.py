"""Batches of a data set: augmented for training, plain for scoring.

What an image becomes depends on the seed, the epoch and the image's number alone, so neither the
number of loader workers nor what was drawn before changes a batch.
"""

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from vitarium import seeds
from vitarium.data.augmentation import Augmentation
from vitarium.data.batch import Batch
from vitarium.data.dataset import Dataset, Split
from vitarium.errors import InvalidData

SplitName = Literal["train", "val", "test"]


class Batches:
    """All batches of one training run.

    Args:
        input_size: channels, height and width that the model takes.
        seed: root of order, augmentation and mixing.
        views: augmented views of each image in a batch.
        device: where batches are normalised, mixed and used.
        loader_workers: processes that decode and augment; 0: this one.

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
        self.seed, self.views = seed, views
        self.device, self.loader_workers = torch.device(device), loader_workers
        shape = (-1, 1, 1)
        self._mean = torch.tensor(dataset.mean, device=device).view(shape) * 255
        self._std = torch.tensor(dataset.std, device=device).view(shape) * 255
        self._augmented = _Augmented(dataset.train, augmentation, seed, views)
        self._idle: list[DataLoader[Any]] = []
        if input_size[0] == 1 and len(dataset.mean) == 3:  # gray input of a colour data set
            self._mean, self._std = (
                self._mean.mean(0, keepdim=True),
                self._std.mean(0, keepdim=True),
            )

    @property
    def steps(self) -> int:
        """Training batches in an epoch; a last one that is not full is left out."""
        return len(self.dataset.train) // self.batch_size

    def train(self, epoch: int) -> Iterator[Batch]:
        """The batches of an epoch, in an order of its own."""
        order = torch.Generator().manual_seed(seeds.derive(self.seed, "order", epoch))
        numbers = torch.randperm(len(self.dataset.train), generator=order)
        full = numbers[: self.steps * self.batch_size].view(self.steps, self.batch_size)
        chosen = [[(epoch, number) for number in some] for some in full.tolist()]
        for step, (images, labels) in enumerate(self._load_augmented(chosen)):
            batch = self._normalised(images, labels)
            with seeds.seeded(seeds.derive(self.seed, "mix", epoch, step)):
                mixed, targets = self.augmentation.mix(batch.images, batch.targets)
            yield Batch(mixed, batch.labels, targets)

    def score(self, split: SplitName, limit: int | None = None) -> Iterator[Batch]:
        """Every image of a split once, in order and not augmented; with `limit` the first ones."""
        part: Split = getattr(self.dataset, split)
        count = len(part) if limit is None else min(len(part), limit)
        size = max(self.batch_size, 256)
        chosen = [list(range(start, min(start + size, count))) for start in range(0, count, size)]
        plain = _Plain(part, self.augmentation)
        loaded = self._loader(plain, chosen) if self.loader_workers else _here(plain, chosen)
        for images, labels in loaded:
            yield self._normalised(images, labels)

    def _load_augmented(
        self, chosen: list[list[tuple[int, int]]]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        if not self.loader_workers:
            yield from _here(self._augmented, chosen)
            return
        # Workers stay for the next epoch; two epochs at a time have workers of their own, since
        # a loader that is iterated anew forgets where it was.
        loader = self._idle.pop() if self._idle else self._loader(self._augmented, [], stay=True)
        loader.batch_sampler[:] = chosen  # type: ignore[index]
        try:
            yield from loader
        finally:
            self._idle.append(loader)

    def _loader(
        self, source: "_Augmented | _Plain", chosen: list[Any], stay: bool = False
    ) -> DataLoader[Any]:
        return DataLoader(
            source,  # type: ignore[arg-type]
            batch_sampler=chosen,
            num_workers=self.loader_workers,
            collate_fn=_as_loaded,
            pin_memory=self.device.type == "cuda",
            persistent_workers=stay,
            generator=torch.Generator(),  # so that the loader draws nothing from the global one
        )

    def _normalised(self, images: Tensor, labels: Tensor) -> Batch:
        on_device = images.to(self.device, non_blocking=True)
        labels = labels.to(self.device, non_blocking=True)
        targets = F.one_hot(labels, self.dataset.num_classes).float()
        return Batch((on_device.float() - self._mean) / self._std, labels, targets)


def _here(
    source: "_Augmented | _Plain", chosen: list[list[Any]]
) -> Iterator[tuple[Tensor, Tensor]]:
    for some in chosen:
        with seeds.preserved():
            loaded = source.__getitems__(some)
        yield loaded


class _Augmented:
    """Whole batches of augmented images, each drawn from a stream named after it."""

    def __init__(self, split: Split, augmentation: Augmentation, seed: int, views: int) -> None:
        self.split, self.transform = split, augmentation.train
        self.seed, self.views = seed, views

    def __len__(self) -> int:
        return len(self.split)

    def __getitems__(self, chosen: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        """Images of (epoch, number), all first views before all second ones."""
        views = [self._view(*which, view) for view in range(self.views) for which in chosen]
        return torch.stack(views), self.split.labels[[number for _, number in chosen]]

    def _view(self, epoch: int, number: int, view: int) -> Tensor:
        # torch's generator alone: torchvision's transforms draw from no other
        stream = seeds.derive(self.seed, "augmentation", epoch, number, view)
        torch.default_generator.manual_seed(stream)
        return self.transform(self.split.images[number])


class _Plain:
    """Whole batches as they are scored."""

    def __init__(self, split: Split, augmentation: Augmentation) -> None:
        self.split, self.transform = split, augmentation.evaluate

    def __len__(self) -> int:
        return len(self.split)

    def __getitems__(self, numbers: list[int]) -> tuple[Tensor, Tensor]:
        images, labels = self.split.images, self.split.labels[numbers]
        if isinstance(images, Tensor):  # of one size, so all at once
            return self.transform(images[numbers]), labels
        return torch.stack([self.transform(images[number]) for number in numbers]), labels


def _as_loaded(batch: Any) -> Any:
    return batch
