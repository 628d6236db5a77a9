"""How many channels a data set's images have, and how many of them a model takes."""

from dataclasses import dataclass, replace

from torch import Tensor

from vitarium.core.errors import InvalidData
from vitarium.data.base import Dataset, Images, Split


def check_channels(dataset: Dataset, count: int, extra: int = 0) -> None:
    """That a model can take a data set's images: with `count` channels, of which the last `extra`
    ones are a modality that its objective sees. Gray becomes RGB where there are none of these.

    Raises InvalidData.
    """
    channels = int(dataset.train.images[0].shape[0])
    if channels == count or (channels in (1, 3) and not extra):
        return
    what = f"images of '{dataset.name}' have {channels} channels"
    if extra:
        what = f"{what}, and not the {count - extra} of the model and the {extra} of its objective"
        raise InvalidData(f"{what}: give others, in `architecture` or `objective`")
    raise InvalidData(f"{what}, and the model {count}: give `architecture.in_chans: {channels}`")


def first_channels(dataset: Dataset, count: int) -> Dataset:
    """The same images with no more than that many channels, the first."""
    return replace(
        dataset,
        train=_first(dataset.train, count),
        val=_first(dataset.val, count),
        test=_first(dataset.test, count),
        mean=dataset.mean[:count],
        std=dataset.std[:count],
    )


def _first(split: Split, count: int) -> Split:
    if isinstance(split.images, Tensor):
        return replace(split, images=split.images[:, :count])
    return replace(split, images=_FirstChannels(split.images, count))


@dataclass(frozen=True)
class _FirstChannels:
    images: Images
    count: int

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index][: self.count]

    @property
    def thread_safe(self) -> bool:
        return getattr(self.images, "thread_safe", False)
