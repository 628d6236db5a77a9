"""Operations of policies for whole batches, each image with its own magnitude.

They are torchvision's (`transforms.v2`) for images of real numbers, with nearest pixels and black
where nothing was. Images are [n, c, h, w] in [0, 1], magnitudes float64 [n] on the CPU.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as tv

from vitarium.data._to_device import to_device
from vitarium.data.augmentations._boxes import blend
from vitarium.data.augmentations.base import channels

Apply = Callable[[Tensor, Tensor], Tensor]


class Range(NamedTuple):
    """How far an operation goes.

    start, end: magnitudes of the first and the last bin, as shares of the width for translations.
    is_signed: the direction is drawn.
    is_whole: rounded to whole numbers.
    """

    start: float
    end: float
    is_signed: bool = True
    is_whole: bool = False


Space = Sequence[tuple[str, Range | None]]
"""Operations with their magnitudes; None: an operation has none."""


def bin_magnitudes(space: Space, operations: Tensor, bins: Tensor, last: int) -> Tensor:
    """Magnitudes [n] of operations (by number in the space) at bins from 0 to `last`, unsigned."""
    ranges = [span or Range(0, 0) for _, span in space]
    start, end = (torch.tensor([span[i] for span in ranges]).double() for i in (0, 1))
    is_whole = torch.tensor([span.is_whole for span in ranges])[operations]
    values = start[operations] + (end - start)[operations] * bins.double() / last
    return torch.where(is_whole, values.round(), values)


def signed(space: Space, operations: Tensor, magnitudes: Tensor, numbers: Tensor) -> Tensor:
    """Magnitudes [n], negative where the operation has a direction and the number is below 1/2."""
    has_sign = torch.tensor([bool(span and span.is_signed) for _, span in space])[operations]
    return torch.where(has_sign & (numbers <= 0.5), -magnitudes, magnitudes)


def apply_operations(
    space: Space, images: Tensor, operations: Tensor, magnitudes: Tensor
) -> Tensor:
    """Change each image by its operation, a number in the space: [n, c, h, w] -> the same."""
    images = images.clone()
    for number, (name, _) in enumerate(space):
        which = (operations == number).nonzero().squeeze(1)
        if len(which) and name != "identity":
            chosen = to_device(which, images.device)
            images[chosen] = OPERATIONS[name](images[chosen], magnitudes[which])
    return images


def _on(images: Tensor, magnitudes: Tensor) -> Tensor:
    """As factors of images, [n, 1, 1, 1]."""
    return to_device(magnitudes.to(images.dtype), images.device).view(-1, 1, 1, 1)


def _moved(images: Tensor, rows: Sequence[Sequence[Tensor | float]]) -> Tensor:
    """Each image from where the affine map of two rows, in pixels from its middle, takes pixels."""
    height, width = images.shape[-2:]
    count = len(images)
    (a, b, c), (d, e, f) = (
        [torch.as_tensor(v, dtype=torch.float64).expand(count) for v in row] for row in rows
    )
    scaled = ((a, b * height / width, 2 * c / width), (d * width / height, e, 2 * f / height))
    theta = torch.stack([torch.stack(row, 1) for row in scaled], 1)
    grid = F.affine_grid(
        to_device(theta.float(), images.device), list(images.shape), align_corners=False
    )
    return F.grid_sample(images, grid, "nearest", "zeros", align_corners=False)


def _shear_x(images: Tensor, magnitudes: Tensor) -> Tensor:
    """About the upper left corner, as AutoAugment's."""
    top = images.shape[-2] / 2
    return _moved(images, ((1.0, magnitudes, magnitudes * top), (0.0, 1.0, 0.0)))


def _shear_y(images: Tensor, magnitudes: Tensor) -> Tensor:
    left = images.shape[-1] / 2
    return _moved(images, ((1.0, 0.0, 0.0), (magnitudes, 1.0, magnitudes * left)))


def _translate_x(images: Tensor, magnitudes: Tensor) -> Tensor:
    pixels = (magnitudes * images.shape[-1]).trunc()
    return _moved(images, ((1.0, 0.0, -pixels), (0.0, 1.0, 0.0)))


def _translate_y(images: Tensor, magnitudes: Tensor) -> Tensor:
    pixels = (magnitudes * images.shape[-2]).trunc()
    return _moved(images, ((1.0, 0.0, 0.0), (0.0, 1.0, -pixels)))


def _rotate(images: Tensor, magnitudes: Tensor) -> Tensor:
    """Counter-clockwise, in degrees."""
    angle = magnitudes * math.pi / 180
    cos, sin = angle.cos(), angle.sin()
    return _moved(images, ((cos, -sin, 0.0), (sin, cos, 0.0)))


def _brightness(images: Tensor, magnitudes: Tensor) -> Tensor:
    return (images * (1 + _on(images, magnitudes))).clamp(0, 1)


def _color(images: Tensor, magnitudes: Tensor) -> Tensor:
    return blend(images, channels(images, 1), 1 + _on(images, magnitudes)).clamp(0, 1)


def _contrast(images: Tensor, magnitudes: Tensor) -> Tensor:
    mean = channels(images, 1).mean((-3, -2, -1), keepdim=True)
    return blend(images, mean, 1 + _on(images, magnitudes)).clamp(0, 1)


def _sharpness(images: Tensor, magnitudes: Tensor) -> Tensor:
    """Against a smoothed image, whose border stays."""
    count = images.shape[1]
    if min(images.shape[-2:]) <= 2:
        return images
    kernel = images.new_tensor([[1.0, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13
    smooth = images.clone()
    smooth[..., 1:-1, 1:-1] = F.conv2d(images, kernel.expand(count, 1, 3, 3), groups=count)
    return blend(images, smooth, 1 + _on(images, magnitudes)).clamp(0, 1)


def _posterize(images: Tensor, magnitudes: Tensor) -> Tensor:
    """To so many bits."""
    levels = _on(images, 2**magnitudes)
    return (images * levels).floor().minimum(levels - 1) / levels


def _solarize(images: Tensor, magnitudes: Tensor) -> Tensor:
    return torch.where(images >= _on(images, magnitudes), 1 - images, images)


def _without_magnitude(change: Callable[[Tensor], Tensor]) -> Apply:
    return lambda images, _: change(images)


OPERATIONS: dict[str, Apply] = {
    "identity": lambda images, _: images,
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
    "rotate": _rotate,
    "brightness": _brightness,
    "color": _color,
    "contrast": _contrast,
    "sharpness": _sharpness,
    "posterize": _posterize,
    "solarize": _solarize,
    "autocontrast": _without_magnitude(tv.autocontrast),
    "equalize": _without_magnitude(tv.equalize),
    "invert": _without_magnitude(tv.invert),
}


def space(
    *,
    shear: float,
    translate: float,
    rotate: float,
    enhance: float,
    posterize: int,
) -> Space:
    """The usual operations with their largest magnitudes; `posterize`: the fewest bits."""
    enhanced = Range(0, enhance)
    return (
        ("identity", None),
        ("shear_x", Range(0, shear)),
        ("shear_y", Range(0, shear)),
        ("translate_x", Range(0, translate)),
        ("translate_y", Range(0, translate)),
        ("rotate", Range(0, rotate)),
        ("brightness", enhanced),
        ("color", enhanced),
        ("contrast", enhanced),
        ("sharpness", enhanced),
        ("posterize", Range(8, posterize, is_signed=False, is_whole=True)),
        ("solarize", Range(1, 0, is_signed=False)),
        ("autocontrast", None),
        ("equalize", None),
    )
