"""How an image becomes what a model was trained on, as its recipe or its importer has it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor

from vitarium.blueprint import Recipe, Spec
from vitarium.core.errors import InvalidInput, NotApplicable
from vitarium.core.registry import Section
from vitarium.data.augmentations import _crops as crops
from vitarium.data.augmentations.base import Augmentation, channels, unmixed
from vitarium.data.expected import Normalization, per_channel, recipe_normalization

Assumed = Literal["data"] | str | tuple[Sequence[float] | float, Sequence[float] | float]
"""A normalization for models of which it is not known: that of the data set, or mean and std of the
pixels in [0, 1], as a pair or a text such as `0.5/0.5` or `0.49,0.48,0.45/0.25,0.24,0.26`."""


@dataclass(frozen=True)
class Preprocessing:
    """An image is resized, its middle is cropped, and it is normalized."""

    input_size: tuple[int, int, int]
    """Channels, height and width of what the model sees."""
    resize: int | tuple[int, int] | None
    """Before the crop: the shorter side, or height and width to which any image is squashed; None:
    images are not resized."""
    interpolation: crops.Interpolation
    mean: tuple[float, ...] | None = None
    """Of the pixels in [0, 1], per channel; None: not known."""
    std: tuple[float, ...] | None = None
    """As mean."""
    augmentation: Section | None = None
    """Of the recipe, where it frames images to be scored by a rule of its own."""
    faults: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Words of an importer that nothing here can apply, and a line on each: why images cannot be
    prepared so."""

    @property
    def normalization(self) -> Normalization | None:
        return None if self.mean is None or self.std is None else (self.mean, self.std)

    def normalized_by(self, normalization: Normalization) -> Self:
        """The same with mean and std, of one channel, of colors or of the model's channels."""
        mean, std = (per_channel(values, self.input_size[0]) for values in normalization)
        return replace(self, mean=mean, std=std)

    def frames(self, num_classes: int = 1) -> Augmentation:
        """Gives the frames of images that are not augmented."""
        if self.augmentation:
            augmentation: Augmentation = self.augmentation(self.input_size, num_classes)
            return augmentation

        def plain(height: int, width: int) -> crops.Frame:
            shorter = self.resize if isinstance(self.resize, int) else None
            squashed = self.resize if isinstance(self.resize, tuple) else (height, width)
            return crops.resized_crops(
                (height, width),
                self.input_size[1:],
                shorter=shorter,
                squashed=None if shorter else squashed,
                interpolation=self.interpolation,
            )

        def frame(numbers: Tensor, height: int, width: int) -> crops.Frame:
            return plain(height, width)

        def change(images: Tensor, numbers: Tensor) -> Tensor:
            return channels(images, self.input_size[0])

        return Augmentation(0, frame, plain, change, unmixed)


def preprocessing_of(spec: Spec) -> Preprocessing:
    """What is known of how a model's images are prepared.

    Of a recipe: its own or its data set's normalization, and its augmentation. Of an imported
    model: what the importer recorded, under our names (`data.mean`, `data.std`,
    `augmentation.resize`, `augmentation.interpolation`) or those of timm and transformers
    (`preprocessing.crop_pct`, `.crop_mode`, `.interpolation`, `.size`, `.crop_size`, `.do_resize`).
    A word that cannot be applied is among the result's `faults`.

    Raises NotApplicable where nothing builds the model, and InvalidInput for what makes no sense.
    """
    origin, architecture = spec.origin, spec.origin.architecture
    if architecture is None:
        raise NotApplicable(f"{spec.id}: nothing here builds its architecture")
    size: tuple[int, int, int] = architecture.config.input_size
    if isinstance(origin, Recipe):
        mean, std = recipe_normalization(origin) or (None, None)
        chosen = origin.augmentation
        resize = getattr(chosen.config, "resize", None) or min(size[1:])
        interpolation: crops.Interpolation = getattr(chosen.config, "interpolation", "bilinear")
        augmentation = chosen if chosen.facts.get("own_plain", False) else None
        return Preprocessing(size, resize, interpolation, mean, std, augmentation)
    words = _Words(spec.id, origin.settings)
    mean, std = words.normalization(size[0]) or (None, None)
    rule = words.resize(size[1:]), words.interpolation()
    return Preprocessing(size, *rule, mean, std, faults=words.faults(size[1:]))


def read_normalization(assumed: Assumed) -> Normalization | None:
    """Mean and std that are given as `Assumed` has them; None: the data set's.

    Raises InvalidInput.
    """
    if assumed == "data":
        return None
    values: Any = assumed
    if isinstance(assumed, str):
        values = [part.split(",") for part in assumed.split("/")]
    try:
        mean, std = (
            tuple(map(float, part)) if isinstance(part, list | tuple) else (float(part),)
            for part in values
        )
    except (TypeError, ValueError):
        mean = std = ()
    is_valid = mean and len(mean) == len(std) and all(map(_is_number, mean + std)) and min(std) > 0
    if not is_valid:
        raise InvalidInput(
            f"normalization {assumed!r} is neither 'data' nor a mean and a positive standard "
            "deviation of each channel's pixels in [0, 1], such as 0.5/0.5"
        )
    return mean, std


_INTERPOLATIONS = ("augmentation.interpolation", "preprocessing.interpolation")


@dataclass(frozen=True)
class _Words:
    """Reads settings of untrusted origin. Raises InvalidInput that names them."""

    id: str
    factors: Mapping[str, Any]

    def normalization(self, channels: int) -> Normalization | None:
        values = [self.factors.get(name) for name in ("data.mean", "data.std")]
        if any(value is None for value in values):
            return None
        mean, std = (self._per_channel(n, channels) for n in ("data.mean", "data.std"))
        if min(std) <= 0:
            raise self._wrong("data.std", "it has to be positive")
        return mean, std

    def resize(self, size: tuple[int, int]) -> int | tuple[int, int] | None:
        if self.factors.get("preprocessing.do_resize") is False:
            return None
        if (shorter := self.factors.get("augmentation.resize")) is not None:
            return self._side("augmentation.resize", shorter)
        if (squashed := self.factors.get("preprocessing.size")) is not None:
            sides = squashed if isinstance(squashed, list) and len(squashed) == 2 else [None, None]
            height, width = (self._side("preprocessing.size", side) for side in sides)
            return height, width
        share = self.factors.get("preprocessing.crop_pct")
        share = 1.0 if share is None else share
        if not _is_number(share) or not 0.01 <= share <= 100:
            raise self._wrong("preprocessing.crop_pct", "it has to be a number such as 0.9")
        height, width = (math.floor(side / share) for side in size)
        squashes = self.factors.get("preprocessing.crop_mode") == "squash"
        return (height, width) if squashes else min(height, width)

    def interpolation(self) -> crops.Interpolation:
        value: Any = next(filter(None, map(self.factors.get, _INTERPOLATIONS)), None)
        return value if value in get_args(crops.Interpolation) else "bilinear"

    def faults(self, size: tuple[int, int]) -> dict[str, str]:
        """Which of the words cannot be applied, and why."""
        usable = {
            **dict.fromkeys(_INTERPOLATIONS, get_args(crops.Interpolation)),
            "preprocessing.crop_mode": ("center", "squash"),
            "preprocessing.crop_size": ([*size],),
        }
        return {
            name: str(self._wrong(name, f"what can be applied is {_listed(values)}"))
            for name, values in usable.items()
            if (value := self.factors.get(name)) is not None and value not in values
        }

    def _per_channel(self, name: str, channels: int) -> tuple[float, ...]:
        value = self.factors[name]
        values = value if isinstance(value, list | tuple) else [value]
        if not values or not all(map(_is_number, values)):
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


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values))


def _is_number(value: Any) -> bool:
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return plain and math.isfinite(torch.tensor(float(value)).item())
