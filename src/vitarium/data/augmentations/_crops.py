"""Frames: which part of an image is seen, at which size.

Resizing, padding, cropping and flipping are linear in the pixels and act on rows and columns apart:
together they are two matrices per image, and for a whole batch two batched matrix products.
"""

import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from vitarium.data._to_device import to_device

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
Resampling = Interpolation | Literal["nearest_exact"]
"""With the nearest pixel to the center of each, as Pillow and transformers have it; torchvision's
`nearest` is that to its corner."""
PaddingMode = Literal["constant", "reflect"]
"""Of pixels beyond an image's edges: black, or the image in a mirror; as in torchvision."""
Rounding = Literal["round", "floor"]
"""Of the middle of an image: half to even, as torchvision and timm do, or down, as transformers."""
_TRIES = 10
CROP_NUMBERS = 2 * _TRIES + 2
"""How many numbers `random_resized_crops` takes."""


class CroppedAxis(NamedTuple):
    """One axis of the frames of n images; all [n].

    The source pixels from `start` on, `length` of them, are resampled to `resized` pixels; of
    these, those from `offset` on are seen. Where there is none, the frame is black.
    """

    start: Tensor
    length: Tensor
    resized: Tensor
    offset: Tensor

    def weights(
        self, pixels: Tensor, source: int, interpolation: Resampling, device: torch.device
    ) -> Tensor:
        """The weight of each source pixel in each seen one, [n, size, source], on the device."""
        positions = to_device((self.offset.unsqueeze(1) + pixels).unsqueeze(2), device)
        start, length, resized = (
            to_device(v.double().view(-1, 1, 1), device)
            for v in (self.start, self.length, self.resized)
        )
        return _weights(positions, start, length, resized, source, interpolation)


class WholeAxis(NamedTuple):
    """An axis of which the whole image is resampled, to the same number of pixels for all n.

    What is seen begins at `offset` ([n]), which is -`margin` at least and at most what leaves
    `margin` pixels behind the image.
    """

    source: int
    resized: int
    offset: Tensor
    margin: int
    padding_mode: PaddingMode = "constant"

    def weights(
        self, pixels: Tensor, source: int, interpolation: Resampling, device: torch.device
    ) -> Tensor:
        """As CroppedAxis.weights, [n, size, source]; all rows there can be are made once."""
        size = (source, self.resized, self.margin)
        rows = _all_rows(*size, self.padding_mode, interpolation, device)
        return rows[to_device(self.margin + self.offset.unsqueeze(1) + pixels, device)]


class Frame(NamedTuple):
    """The frames of n images (or one for all of a batch), each of `size` (height, width)."""

    rows: CroppedAxis | WholeAxis
    columns: CroppedAxis | WholeAxis
    size: tuple[int, int]
    interpolation: Resampling = "bilinear"
    flipped: Tensor | None = None
    """Which are seen in a mirror, bool [n]."""

    def cut(self, images: Tensor) -> Tensor:
        """uint8 [n, c, h, w] -> float [n, c, *size] in [0, 1], on the images' device; resampled as
        torchvision's antialiased resizing does, and Pillow's, without rounding in between."""
        height, width = images.shape[-2:]
        pixels = images.float() / 255
        if not self._shows_all(height, width):
            how = (self.interpolation, images.device)
            down = self.rows.weights(_output_pixels(self.size[0], None), height, *how)
            across = self.columns.weights(_output_pixels(self.size[1], self.flipped), width, *how)
            pixels = down.unsqueeze(1) @ (pixels @ across.unsqueeze(1).transpose(-1, -2))
        return pixels.clamp_(0, 1) if self.interpolation in _OVERSHOOT else pixels

    def _shows_all(self, height: int, width: int) -> bool:
        axes = ((self.rows, height, self.size[0]), (self.columns, width, self.size[1]))
        return self.flipped is None and all(
            isinstance(axis, WholeAxis)
            and size == source == axis.resized
            and len(axis.offset) == 1
            and int(axis.offset) == 0
            for axis, source, size in axes
        )


def _output_pixels(size: int, mirrored: Tensor | None) -> Tensor:
    """Numbers of the seen pixels, [1, size] or [n, size]; backwards in a mirror."""
    numbers = torch.arange(size).unsqueeze(0)
    return numbers if mirrored is None else torch.where(mirrored[:, None], numbers.flip(1), numbers)


def reflected(positions: Tensor, size: int) -> Tensor:
    """Positions of pixels, those beyond the edges in a mirror: [*shape] -> from 0 to size - 1"""
    return size - 1 - (size - 1 - positions.abs()).abs()


@lru_cache(maxsize=64)
def _all_rows(
    source: int,
    resized: int,
    margin: int,
    padding_mode: PaddingMode,
    interpolation: Resampling,
    device: torch.device,
) -> Tensor:
    """Of source pixels in all resized and margin ones: [resized + 2 * margin, source]."""
    positions = torch.arange(-margin, resized + margin).view(1, -1, 1)
    if padding_mode == "reflect":
        positions = reflected(positions, resized)
    start, length, size = (torch.tensor(v, dtype=torch.float64) for v in (0, source, resized))
    return _weights(positions, start, length, size, source, interpolation)[0].to(device)


def _weights(
    positions: Tensor,
    start: Tensor,
    length: Tensor,
    resized: Tensor,
    source: int,
    interpolation: Resampling,
) -> Tensor:
    """Of all source pixels in the pixels at `positions` [n, m, 1] of the resized image,
    [n, m, source]; the other tensors are [n, 1, 1]."""
    pixel = torch.arange(source, dtype=torch.float64, device=positions.device)
    scale = length / resized
    if interpolation in ("nearest", "nearest_exact"):
        at = positions if interpolation == "nearest" else positions + 0.5
        weights = (pixel == start + (at * scale).floor()).double()
    else:
        center = start + (positions + 0.5) * scale
        distance = (pixel + 0.5 - center) / scale.clamp(min=1)  # wider when shrinking
        weights = _KERNELS[interpolation](distance)
        weights *= (pixel >= start) & (pixel < start + length)
        weights /= weights.sum(2, keepdim=True).clamp(min=1e-12)
    return (weights * ((positions >= 0) & (positions < resized))).float()


def _linear(x: Tensor) -> Tensor:
    return (1 - x.abs()).clamp(min=0)


def _cubic(x: Tensor) -> Tensor:
    """Keys's kernel with a = -1/2, as Pillow and torch have it where they antialias."""
    x = x.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def _lanczos(x: Tensor) -> Tensor:
    return torch.sinc(x) * torch.sinc(x / 3) * (x.abs() < 3)


def _box(x: Tensor) -> Tensor:
    return ((x > -0.5) & (x <= 0.5)).double()


def _hamming(x: Tensor) -> Tensor:
    return torch.sinc(x) * (0.54 + 0.46 * torch.cos(torch.pi * x)) * (x.abs() < 1)


_KERNELS: Mapping[Resampling, Callable[[Tensor], Tensor]] = {
    "bilinear": _linear,
    "bicubic": _cubic,
    "lanczos": _lanczos,
    "box": _box,
    "hamming": _hamming,
}
"""Of the distance to a pixel's center, as Pillow has them (src/libImaging/Resample.c); whether a
pixel on the very edge of a box is in it is a matter of rounding, there and here."""
_OVERSHOOT = ("bicubic", "lanczos")


def resized_crops(
    image: tuple[int, int],
    size: tuple[int, int],
    *,
    shorter: int | None = None,
    squashed: tuple[int, int] | None = None,
    interpolation: Resampling = "bilinear",
    padding: int = 0,
    padding_mode: PaddingMode = "constant",
    crop_numbers: Tensor | None = None,
    flipped: Tensor | None = None,
    rounding: Rounding = "round",
) -> Frame:
    """The shorter side to `shorter`, or such that `size` is covered; `padding` around, then a crop.

    squashed: height and width to which the image is resized instead, whatever its own shape.
    rounding: of a middle that lies between two pixels.
    crop_numbers: two numbers in [0, 1) per image, where its crop is, [n, 2]; None: the middle.
    flipped: which are mirrored, bool [n].
    """
    axes, resized_to = [], squashed or covering_size(image, (shorter,) * 2 if shorter else size)
    for axis, (source, cropped, resized) in enumerate(zip(image, size, resized_to, strict=True)):
        margin = max(padding, cropped - resized, 0)
        if crop_numbers is None:
            offset = torch.tensor([_middle(resized - cropped, rounding)])
        else:
            offset = _integer(crop_numbers[:, axis], resized + 2 * padding - cropped + 1) - padding
        axes.append(WholeAxis(source, resized, offset, margin, padding_mode))
    return Frame(axes[0], axes[1], size, interpolation, flipped)


def _middle(surplus: int, rounding: Rounding) -> int:
    """Where a crop begins in an axis that is so much longer, or shorter: then it is padded."""
    if surplus < 0:
        return -(-surplus // 2)
    return surplus // 2 if rounding == "floor" else round(surplus / 2)


def resized_size(image: tuple[int, int], shorter: int) -> tuple[int, int]:
    """Height and width of the same shape; rounded down, as torchvision does."""
    height, width = image
    if height <= width:
        return shorter, int(shorter * width / height)
    return int(shorter * height / width), shorter


def covering_size(image: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the same shape that just cover `size`, a rectangle as in timm."""
    if size[0] == size[1]:
        return resized_size(image, size[0])
    ratio = min(image[0] / size[0], image[1] / size[1])
    return round(image[0] / ratio), round(image[1] / ratio)


def random_resized_crops(
    image: tuple[int, int],
    size: tuple[int, int],
    *,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    numbers: Tensor,
    interpolation: Resampling = "bilinear",
    flipped: Tensor | None = None,
) -> Frame:
    """Crops of random area and shape, resized to `size`; as torchvision's RandomResizedCrop.

    scale: bounds of the crop's area as a share of the image's; ratio: of its width over its height,
    drawn evenly in the logarithm; numbers: float64 [n, CROP_NUMBERS].
    """
    height, width = image
    areas, shapes, offsets = numbers.split((_TRIES, _TRIES, 2), dim=1)
    area = height * width * (scale[0] + (scale[1] - scale[0]) * areas)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    shape = torch.exp(low + (high - low) * shapes)
    tall, wide = (area / shape).sqrt().round(), (area * shape).sqrt().round()
    fits = (tall > 0) & (tall <= height) & (wide > 0) & (wide <= width)
    first = fits.int().argmax(1, keepdim=True)  # the first try that fits
    none = ~fits.any(1)
    middle = _largest_of_ratio(height, width, ratio)
    starts, lengths = [], []
    for axis, (tried, full) in enumerate(((tall, height), (wide, width))):
        length = tried.gather(1, first).squeeze(1).long()
        start = _integer(offsets[:, axis], full - length + 1)
        lengths.append(length.masked_fill(none, middle[axis]))
        starts.append(start.masked_fill(none, (full - middle[axis]) // 2))
    rows, columns = (
        CroppedAxis(start, length, torch.full_like(start, cropped), torch.zeros_like(start))
        for start, length, cropped in zip(starts, lengths, size, strict=True)
    )
    return Frame(rows, columns, size, interpolation, flipped)


def _integer(number: Tensor, count: Tensor | int) -> Tensor:
    """Numbers in [0, 1) -> whole ones from 0 to count - 1."""
    return (number * count).floor().long()


def _largest_of_ratio(height: int, width: int, ratio: tuple[float, float]) -> tuple[int, int]:
    """Height and width of the largest crop whose shape is allowed: where no try fits."""
    if width / height < ratio[0]:
        return min(height, round(width / ratio[0])), width
    if width / height > ratio[1]:
        return height, min(width, round(height * ratio[1]))
    return height, width
