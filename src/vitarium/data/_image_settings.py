"""What importers recorded of how a model's images are prepared: read, and checked."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch

from vitarium.core.errors import InvalidInput
from vitarium.data.augmentations import _crops as crops
from vitarium.data.expected import Normalization, per_channel


@dataclass(frozen=True)
class Covering:
    """Images keep their shape, and are just large enough to cover these sides: timm's resizing to
    a rectangle."""

    height: int
    width: int

    def size(self, image: tuple[int, int]) -> tuple[int, int]:
        """Height and width of an image when it is resized, of those that it has."""
        return crops.covering_size(image, (self.height, self.width))


def covering(size: tuple[int, int]) -> int | Covering:
    """How images are resized to cover that height and width: of a square, by the shorter side."""
    return size[0] if size[0] == size[1] else Covering(*size)


_INTERPOLATIONS = ("augmentation.interpolation", "preprocessing.interpolation")
CROP, _INPUT_SIZE = "preprocessing.do_center_crop", "preprocessing.input_size"
_SIZE = "preprocessing.size"
_NEVER = {
    "preprocessing.image_processor_type": "what it does to images is not known here",
    "preprocessing.do_pad": "what can be applied is False",
    **dict.fromkeys(
        (f"{_SIZE}.longest_edge", f"{_SIZE}.max_height", f"{_SIZE}.max_width"),
        "what can be applied is shortest_edge alone, or height and width",
    ),
}
"""Settings that nothing here can apply, whatever they are unless false, and why."""
_FROM_CENTERS = ("timm", "hugging_face")
"""Importers of programs whose `nearest` is the nearest pixel to a pixel's center."""
_TIMM_SHARE, _TIMM_INTERPOLATION = 0.875, "bicubic"
"""What timm takes where a description of weights does not say it (`resolve_data_config`)."""


@dataclass(frozen=True)
class ImageSettings:
    """Reads settings of untrusted origin. Raises InvalidInput that names them."""

    id: str
    factors: Mapping[str, Any]
    source: str
    """The importer that they are of."""

    def input_size(
        self, built_for: tuple[int, int, int], takes: Callable[[tuple[int, int, int]], bool]
    ) -> tuple[int, int, int]:
        """The images' own size, where the model takes others than those it is built for."""
        value = self.factors.get(_INPUT_SIZE)
        if not isinstance(value, list) or len(value) != 3:
            return built_for
        height, width = (self._side(_INPUT_SIZE, side) for side in value[1:])
        stated = (built_for[0], height, width)
        return stated if stated != built_for and takes(stated) else built_for

    def normalization(self, channels: int) -> Normalization | None:
        values = [self.factors.get(name) for name in ("data.mean", "data.std")]
        if any(value is None for value in values):
            return None
        mean, std = (self._per_channel(n, channels) for n in ("data.mean", "data.std"))
        if min(std) <= 0:
            raise self._wrong("data.std", "it has to be positive")
        return mean, std

    def resize(self, size: tuple[int, int]) -> int | tuple[int, int] | Covering | None:
        if self.factors.get("preprocessing.do_resize") is False:
            return None
        if (shorter := self.factors.get("augmentation.resize")) is not None:
            return self._side("augmentation.resize", shorter)
        if (squashed := self.factors.get(_SIZE)) is not None:
            pair = squashed if isinstance(squashed, list) and len(squashed) == 2 else [None, None]
            height, width = (self._side(_SIZE, side) for side in pair)
            return height, width
        share: Any = self.factors.get("preprocessing.crop_pct")
        default = _TIMM_SHARE if self.source == "timm" else 1.0
        share = default if share is None else share
        if not is_number(share) or not 0.01 <= share <= 100:
            raise self._wrong("preprocessing.crop_pct", "it has to be a number such as 0.9")
        height, width = (math.floor(side / share) for side in size)
        if self.factors.get("preprocessing.crop_mode") == "squash":
            return height, width
        return covering((height, width))

    def interpolation(self) -> crops.Resampling:
        default = _TIMM_INTERPOLATION if self.source == "timm" else "bilinear"
        value: Any = next(filter(None, map(self.factors.get, _INTERPOLATIONS)), default)
        if value == "nearest" and self.source in _FROM_CENTERS:
            return "nearest_exact"
        return value if value in get_args(crops.Interpolation) else "bilinear"

    def center_crop(self) -> crops.Rounding | Literal["none"]:
        if self.factors.get(CROP) is False:
            return "none"
        return "floor" if self.source == "hugging_face" else "round"

    def faults(self, input_size: tuple[int, int, int], resize: Any) -> dict[str, str]:
        """Which of the settings cannot be applied, and why."""
        size = input_size[1:]
        usable = {
            **dict.fromkeys(_INTERPOLATIONS, get_args(crops.Interpolation)),
            "preprocessing.crop_mode": ("center", "squash"),
            "preprocessing.crop_size": ([*size],),
            _INPUT_SIZE: ([*input_size],),
        }
        faults = {
            name: str(self._wrong(name, why)) for name, why in _NEVER.items() if self._has(name)
        }
        resized = (resize, resize) if isinstance(resize, int) else resize
        if self.factors.get(CROP) is False and resized not in (None, size):
            what = f"images of {sides(resized)} pixels for a model that takes {sides(size)}"
            faults[CROP] = str(self._wrong(CROP, f"that leaves {what}"))
        return faults | {
            name: str(self._wrong(name, f"what can be applied is {_listed(values)}"))
            for name, values in usable.items()
            if (value := self.factors.get(name)) is not None and value not in values
        }

    def _has(self, name: str) -> bool:
        return self.factors.get(name) not in (None, False)

    def _per_channel(self, name: str, channels: int) -> tuple[float, ...]:
        value = self.factors[name]
        values = value if isinstance(value, list | tuple) else [value]
        if not values or not all(map(is_number, values)):
            raise self._wrong(name, "it has to be a number per channel")
        if len(values) not in (1, 3, channels):
            raise self._wrong(name, f"the model takes images of {channels} channels")
        return per_channel([float(number) for number in values], channels)

    def _side(self, name: str, value: Any) -> int:
        if type(value) is not int or not 0 < value < 1 << 16:
            raise self._wrong(name, "it has to be a number of pixels")
        return value

    def _wrong(self, name: str, why: str) -> InvalidInput:
        value = str(self.factors[name])[:60]
        return InvalidInput(
            f"model {self.id}: its images cannot be prepared: {name}={value}; {why}"
        )


def sides(size: Any) -> str:
    height, width = (size.height, size.width) if isinstance(size, Covering) else size
    return f"{height}\N{MULTIPLICATION SIGN}{width}"


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values))


def is_number(value: Any) -> bool:
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return plain and math.isfinite(torch.tensor(float(value)).item())
