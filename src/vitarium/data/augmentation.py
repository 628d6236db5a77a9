"""What an augmentation is: how images become a model's input, in training and in scoring."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, PositiveFloat
from torch import Tensor
from torchvision.transforms import v2

Transform = Callable[[Tensor], Tensor]


def _rising(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError("the first number has to be the smaller one")
    return bounds


Range = Annotated[tuple[PositiveFloat, PositiveFloat], AfterValidator(_rising)]
"""The smallest and the largest value of something that is drawn."""


@dataclass(frozen=True)
class Augmentation:
    """Three steps on the way to a model, for images of `input_size` (channels, height, width).

    train: one uint8 image [c, h, w] of any size -> uint8 of input_size; random, by torch's
        generator alone.
    evaluate: one uint8 image, or a batch of equal size [n, c, h, w] -> uint8 of input_size.
    mix: a normalised float batch [b, *input_size] and its targets [b, num_classes] -> the same
        shapes; random, by Python's, NumPy's and torch's generators.
    """

    train: Transform
    evaluate: Transform
    mix: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def unmixed(images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The `mix` of an augmentation that does not mix."""
    return images, targets


def compose(*steps: Transform | None) -> Transform:
    """The steps that are there, one after the other."""
    present = [step for step in steps if step is not None]

    def run(image: Tensor) -> Tensor:
        for step in present:
            image = step(image)
        return image

    return run


def channels(count: int) -> Transform:
    """To gray or to RGB, whichever has `count` channels; an image that has them is left alone."""
    convert = v2.RGB() if count == 3 else v2.Grayscale(count)

    def run(image: Tensor) -> Tensor:
        converted: Tensor = image if image.shape[-3] == count else convert(image)
        return converted

    return run


def resize(size: int, interpolation: str = "bilinear") -> Transform:
    """The shorter side to `size`; an image that has it is left alone."""
    change = v2.Resize(size, v2.InterpolationMode(interpolation), antialias=True)

    def run(image: Tensor) -> Tensor:
        resized: Tensor = image if min(image.shape[-2:]) == size else change(image)
        return resized

    return run


def centre(height: int, width: int) -> Transform:
    """The middle; an image of that size is left alone."""
    cut = v2.CenterCrop((height, width))

    def run(image: Tensor) -> Tensor:
        middle: Tensor = image if image.shape[-2:] == (height, width) else cut(image)
        return middle

    return run
