"""One image in its frame, by torch's own resampling.

For a whole batch, two matrix products are fastest (`Frame.cut`); for one image, most entries of the
matrices are zeros, and torch's antialiased interpolation takes a tenth of the time.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from vitarium.data.augmentations._crops import (
    CroppedAxis,
    Frame,
    PaddingMode,
    WholeAxis,
    reflected,
)

_FILTERS = ("bilinear", "bicubic")
"""Those that torch has, with antialiasing, as `Frame.cut` defines them."""
_MAX_SURPLUS = 4
"""Resized pixels per seen one; a long strip would become millions of pixels that nobody sees."""


class _Part(NamedTuple):
    """The source pixels from `start` on become `resized` pixels, seen from `offset` on."""

    start: int
    length: int
    resized: int
    offset: int
    padding_mode: PaddingMode = "constant"


def cut_image(frame: Frame, image: Tensor) -> Tensor:
    """An image uint8 [c, h, w] in a frame of one image -> uint8 [c, *frame.size].

    Bilinear pixels are those of torchvision's transforms for uint8, whose integer arithmetic is
    twice as fast and agrees with `frame.cut` to a gray level. Bicubic ones would not, since their
    overshoot is cut off between rows and columns there; they are those of `frame.cut`, rounded.
    """
    rows, columns = (_part(axis) for axis in (frame.rows, frame.columns))
    surplus = rows.resized * columns.resized > _MAX_SURPLUS * math.prod(frame.size)
    if surplus or frame.interpolation not in _FILTERS:
        return (frame.cut(image[None])[0] * 255).round_().to(torch.uint8)
    source = image.narrow(1, rows.start, rows.length).narrow(2, columns.start, columns.length)
    if source.shape[1:] == (rows.resized, columns.resized):
        resized = source[None]
    else:
        pixels = source if frame.interpolation == "bilinear" else source.float()
        shape = (rows.resized, columns.resized)
        resized = F.interpolate(pixels[None], shape, mode=frame.interpolation, antialias=True)
        if resized.is_floating_point():
            resized = resized.clamp_(0, 255).round_().to(torch.uint8)
    seen = _seen(resized[0], rows, columns, frame.size)
    return seen if frame.flipped is None or not bool(frame.flipped) else seen.flip(2)


def _seen(resized: Tensor, rows: _Part, columns: _Part, size: tuple[int, int]) -> Tensor:
    """[c, rows.resized, columns.resized] -> [c, *size]"""
    if rows.padding_mode == "reflect":  # torch reflects no integers
        parts = zip((rows, columns), size, strict=True)
        down, across = (reflected(p.offset + torch.arange(n), p.resized) for p, n in parts)
        return resized[:, down][:, :, across]
    height, width = size
    sides = [side for part, n in ((columns, width), (rows, height)) for side in _pad(part, n)]
    return F.pad(resized, sides) if any(sides) else resized


def _part(axis: CroppedAxis | WholeAxis) -> _Part:
    if isinstance(axis, WholeAxis):
        return _Part(0, axis.source, axis.resized, int(axis.offset), axis.padding_mode)
    return _Part(int(axis.start), int(axis.length), int(axis.resized), int(axis.offset))


def _pad(part: _Part, size: int) -> tuple[int, int]:
    """Black pixels before and behind; negative: pixels that are cut off."""
    return -part.offset, part.offset + size - part.resized
