"""What functions return as images and labels, in the forms that data sets have."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from vitarium.core.errors import InvalidData
from vitarium.data._image_files import decoded
from vitarium.data.base import Images, Split

_COLORS = (1, 3)


def split_of(name: str, split: str, part: Any) -> Split:
    """What a function returned for a split, in any form that `vitarium.dataset` names, as a Split.

    Raises InvalidData that names the data set and the split.
    """
    where = f"data set '{name}', split '{split}'"
    if isinstance(part, tuple | list) and len(part) == 2:
        images: Images = _pixels(part[0], where, batched=True)
        labels = _labels(part[1], where)
    elif hasattr(part, "__getitem__") and hasattr(part, "__len__") and not isinstance(part, str):
        images, labels = _Items(part, where), _labels(_targets(part, where), where)
    else:
        raise InvalidData(
            f"{where}: its function returned {type(part).__name__}; return (images, labels), a "
            "torch.utils.data.Dataset with a length, or None"
        )
    if not len(images) or len(images) != len(labels):
        raise InvalidData(f"{where}: {len(images)} images and {len(labels)} labels")
    return Split(images, labels)


def _targets(part: Any, where: str) -> Any:
    """Labels of a Dataset; where it has no list of them, every item is looked at."""
    for attribute in ("targets", "labels"):
        labels = getattr(part, attribute, None)
        if labels is not None and len(labels) == len(part):
            return labels
    try:
        return [part[number][1] for number in range(len(part))]
    except (TypeError, KeyError, IndexError) as error:
        raise InvalidData(f"{where}: items are no pairs of an image and a label: {error}") from None


def _labels(labels: Any, where: str) -> Tensor:
    """int64 [n], or bool [n, classes]"""
    values = torch.as_tensor(np.asarray(labels))
    if values.ndim == 2 and values.dtype == torch.bool:
        return values
    if values.ndim != 1 or values.is_floating_point() or values.dtype == torch.bool:
        shape = f"{values.dtype} {list(values.shape)}"
        raise InvalidData(
            f"{where}: labels are {shape}; give an integer per image, or bool [n, classes]"
        )
    return values.long()


def _pixels(values: Any, where: str, *, batched: bool) -> Tensor:
    """Images of any form that `dataset` names -> uint8 [n, c, h, w], or [c, h, w] of one."""
    is_array = not isinstance(values, Tensor)
    pixels = torch.as_tensor(np.require(values, requirements="W") if is_array else values)
    if pixels.ndim == 2 + batched:
        pixels = pixels.unsqueeze(-3)
    elif pixels.ndim == 3 + batched:
        first, last = pixels.shape[-3] in _COLORS, pixels.shape[-1] in _COLORS
        if last and (is_array or not first):
            pixels = pixels.movedim(-1, -3)
        elif not first and is_array:
            raise InvalidData(
                f"{where}: arrays are [..., h, w] or [..., h, w, c] with 1 or 3 colors; of other "
                "channels give a tensor, [..., c, h, w]"
            )
    else:
        raise InvalidData(f"{where}: images are {list(pixels.shape)}; see `vitarium.dataset`")
    if pixels.is_floating_point():
        low, high = float(pixels.min()), float(pixels.max())
        if not (low >= 0 and high <= 1):  # NaN, too
            ranges = f"from {low:g} to {high:g}; scale them to [0, 1]"
            raise InvalidData(f"{where}: floating-point pixels {ranges}")
        pixels = (pixels * 255).round().to(torch.uint8)
    if pixels.dtype != torch.uint8:
        raise InvalidData(f"{where}: pixels are {pixels.dtype}; give uint8, or floats in [0, 1]")
    return pixels.contiguous()


class _Items:
    """Images of a Dataset by number, decoded when they are asked for."""

    def __init__(self, source: Any, where: str) -> None:
        self.source, self.where = source, where

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Tensor:
        from PIL import Image

        image, name = self.source[index][0], f"{self.where}: image {index}"
        if isinstance(image, Image.Image):
            return decoded(image.copy(), name)  # which may be turned in place
        return _pixels(image, name, batched=False)

    @property
    def fingerprint(self) -> str | None:
        of_source: str | None = getattr(self.source, "fingerprint", None)
        return of_source
