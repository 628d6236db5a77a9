"""What an augmentation is: how images become a model's input, in training and in scoring.

Whole batches are augmented at a time, each image by random numbers of its own, which are given,
never drawn here: so an image becomes the same in any batch, on any device, and in any process.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

import torch
from pydantic import AfterValidator, Field, PositiveFloat
from torch import Tensor
from torchvision.transforms.v2.functional import rgb_to_grayscale

from vitarium.core.registry import contract, register
from vitarium.data.augmentations._crops import Frame


def _rising(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError("the first number has to be the smaller one")
    return bounds


Range = Annotated[tuple[PositiveFloat, PositiveFloat], AfterValidator(_rising)]
"""The smallest and the largest value of something that is drawn."""
Area = Annotated[
    tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]],
    AfterValidator(_rising),
]
"""The smallest and the largest area of a crop, as a share of the image's."""
Probability = Annotated[float, Field(ge=0, le=1)]
"""From 0 to 1."""


@dataclass(frozen=True)
class Augmentation:
    """Four functions on the way to a model, for images of `input_size` (channels, height, width).

    numbers: how many numbers, uniform in [0, 1), each image is given: float64 [n, numbers] on the
        CPU, whatever the images' device.
    frame: numbers [n, numbers] and height and width of the images -> the part of each image that
        is seen in training.
    plain: height and width -> the part that is seen in scoring.
    change: images [n, c, height, width] in [0, 1] and their numbers -> [n, *input_size].
    mix: the normalized batches of k models, [k, b, *input_size], their targets
        [k, b, num_classes] and numbers [k, b, numbers] -> images and targets of the same shapes.
    repeats: times that each image is in a batch of training.
    changes: of each of an objective's views its own `change`; empty: `change` for all of them.
    other_views: views beside these, by name, which the objective finds in `batch.other_views`.
    """

    numbers: int
    frame: Callable[[Tensor, int, int], Frame]
    plain: Callable[[int, int], Frame]
    change: Callable[[Tensor, Tensor], Tensor]
    mix: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
    repeats: int = 1
    changes: tuple[Callable[[Tensor, Tensor], Tensor], ...] = ()
    other_views: Mapping[str, "OtherViews"] = field(default_factory=dict)


@dataclass(frozen=True)
class OtherViews:
    """Views of each image beside those that an objective asks for, e.g. small crops.

    size: channels, height and width.
    count: of each image.
    numbers: uniform numbers for each view, drawn for these views alone; 0: each view is made by the
        numbers of the objective's view of the same place (of which there are `count`, too), so that
        it can show the same part of the image.
    frame, change: as of Augmentation, for images of `size`.
    """

    size: tuple[int, int, int]
    count: int
    numbers: int
    frame: Callable[[Tensor, int, int], Frame]
    change: Callable[[Tensor, Tensor], Tensor]


MakeAugmentation = TypeVar(
    "MakeAugmentation", bound=Callable[[Any, tuple[int, int, int], int], Augmentation]
)


@contract
def augmentation(
    name: str, *, own_plain: bool = False, paper: str = "", tiny: Mapping[str, Any] | None = None
) -> Callable[[MakeAugmentation], MakeAugmentation]:
    """Register an augmentation: a function `(config, input_size, num_classes) -> Augmentation`.

    `input_size` is channels, height and width of the model's images. An image becomes the same in a
    batch of any size, and beside any other models that are trained together.

    Args:
        own_plain: its `plain` is none of the usual: the shorter side is resized to the setting
            `resize` (None, or no such setting: the model's), by the setting `interpolation`
            (bilinear), and the middle is cropped. Exports can tell of the usual alone.
        paper: authors, year and arXiv number, or an address.
        tiny: settings for the contract tests, beside the defaults: all that it can do switched on.

    It raises InvalidInput where the settings do not fit the input size.
    `vitarium.testing.check_augmentation(name)` tests all of it.
    """
    return register("augmentation", name, own_plain=own_plain, paper=paper, tiny=tiny)


class Numbers:
    """Names for parts of an image's numbers: `Numbers(flip=1, crop=2)(drawn, "crop")`."""

    def __init__(self, **widths: int) -> None:
        self._widths, self.total = widths, sum(widths.values())

    def __call__(self, drawn: Tensor, name: str) -> Tensor:
        """[..., total] -> [..., width of that part]"""
        parts = torch.split(drawn, [*self._widths.values()], dim=-1)
        return dict(zip(self._widths, parts, strict=True))[name]


def unmixed(images: Tensor, targets: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """The `mix` of an augmentation that does not mix: [k, b, ...], unchanged."""
    return images, targets


def channels(images: Tensor, count: int) -> Tensor:
    """To gray or RGB: [..., c, h, w] -> [..., count, h, w]; unchanged where c is `count`."""
    if images.shape[-3] == count:
        return images
    if count == 3:
        return images.expand(*images.shape[:-3], 3, *images.shape[-2:])
    return rgb_to_grayscale(images, 1)
