"""How an image becomes what a model was trained on, as its recipe or its importer has it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, Self

import torch
from torch import Tensor

from vitarium.blueprint import Imported, Recipe, Spec
from vitarium.core.devices import meta_device
from vitarium.core.errors import InvalidInput, NotApplicable
from vitarium.core.registry import Section
from vitarium.data._image_settings import CROP, Covering, ImageSettings, covering, is_number, sides
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
    resize: int | tuple[int, int] | Covering | None
    """Before the crop: the shorter side, or height and width to which any image is squashed, or
    that it covers; None: images are not resized."""
    interpolation: crops.Resampling
    mean: tuple[float, ...] | None = None
    """Of the pixels in [0, 1], per channel; None: not known."""
    std: tuple[float, ...] | None = None
    """As mean."""
    augmentation: Section | None = None
    """Of the recipe, where it frames images to be scored by a rule of its own."""
    faults: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Words of an importer that nothing here can apply, and a line on each: why images cannot be
    prepared so."""
    center_crop: crops.Rounding | Literal["none"] = field(default="round", repr=False)
    """How the middle is rounded; none: images are not cropped, and others than those that have the
    `input_size` after resizing are refused."""

    extra_channels: int = field(default=0, repr=False)
    """Channels that images may have after those that the model sees."""

    @property
    def key(self) -> str:
        """A text that tells it from all others."""
        extra = f" +{self.extra_channels}" if self.extra_channels else ""
        crop = "" if self.center_crop == "round" else f" {self.center_crop}"
        return repr(self) + crop + extra

    @property
    def normalization(self) -> Normalization | None:
        return None if self.mean is None or self.std is None else (self.mean, self.std)

    def normalized_by(self, normalization: Normalization) -> Self:
        """The same with mean and std, of one channel, of colors or of the model's channels."""
        channels, extra = self.input_size[0], self.extra_channels
        mean, std = (per_channel(values, channels, extra) for values in normalization)
        return replace(self, mean=mean, std=std)

    def frames(self, num_classes: int = 1) -> Augmentation:
        """Gives the frames of images that are not augmented."""
        if self.augmentation:
            augmentation: Augmentation = self.augmentation(self.input_size, num_classes)
            return augmentation

        def plain(height: int, width: int) -> crops.Frame:
            image = (height, width)
            rounding: crops.Rounding = "floor" if self.center_crop == "floor" else "round"
            return crops.resized_crops(
                image,
                self.input_size[1:],
                squashed=self._resized(image),
                interpolation=self.interpolation,
                rounding=rounding,
            )

        def frame(numbers: Tensor, height: int, width: int) -> crops.Frame:
            return plain(height, width)

        def change(images: Tensor, numbers: Tensor) -> Tensor:
            return channels(images, self.input_size[0])

        return Augmentation(0, frame, plain, change, unmixed)

    def _resized(self, image: tuple[int, int]) -> tuple[int, int]:
        """Height and width. Raises InvalidInput for a wrong size that is not to be cropped."""
        resized = image
        if isinstance(self.resize, int):
            resized = crops.resized_size(image, self.resize)
        elif isinstance(self.resize, Covering):
            resized = self.resize.size(image)
        elif self.resize is not None:
            resized = self.resize
        if self.center_crop == "none" and resized != self.input_size[1:]:
            raise InvalidInput(
                f"{CROP}=False: an image of {sides(image)} pixels becomes one of "
                f"{sides(resized)}, and the model takes {sides(self.input_size[1:])}; "
                "take a data set of square images"
            )
        return resized


def preprocessing_of(spec: Spec) -> Preprocessing:
    """What is known of how a model's images are prepared.

    Of a recipe: its own or its data set's normalization, and its augmentation. Of an imported
    model: what the importer recorded, under our names (`data.mean`, `data.std`,
    `augmentation.resize`, `augmentation.interpolation`) or those of timm and transformers
    (`preprocessing.crop_pct`, `.crop_mode`, `.interpolation`, `.input_size`, `.size`, `.crop_size`,
    `.do_resize`, `.do_center_crop`); timm's defaults stand for what a model of timm's lacks. A word
    that cannot be applied is among the result's `faults`.

    Raises NotApplicable where nothing builds the model, and InvalidInput for what makes no sense.
    """
    origin, architecture = spec.origin, spec.origin.architecture
    if architecture is None:
        raise NotApplicable(f"{spec.id}: nothing here builds its architecture")
    size: tuple[int, int, int] = architecture.config.input_size
    if isinstance(origin, Recipe):
        mean, std = recipe_normalization(origin) or (None, None)
        chosen = origin.augmentation
        resize = getattr(chosen.config, "resize", None) or covering(size[1:])
        interpolation: crops.Interpolation = getattr(chosen.config, "interpolation", "bilinear")
        augmentation = chosen if chosen.facts.get("own_plain", False) else None
        return Preprocessing(
            size,
            resize,
            interpolation,
            mean,
            std,
            augmentation,
            extra_channels=origin.extra_channels,
        )
    words = ImageSettings(spec.id, origin.settings, origin.source)
    size = words.input_size(size, partial(_takes, origin))
    mean, std = words.normalization(size[0]) or (None, None)
    rule = words.resize(size[1:]), words.interpolation()
    crop = words.center_crop()
    return Preprocessing(
        size, *rule, mean, std, faults=words.faults(size, rule[0]), center_crop=crop
    )


def _takes(origin: Imported, size: tuple[int, int, int]) -> bool:
    """Whether a model runs on images of that size: it is built and run without memory."""
    try:
        with meta_device(), torch.no_grad():
            origin.build(1).eval()(torch.empty(1, *size))
    except Exception:  # the model alone knows, and says it in many ways
        return False
    return True


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
    is_valid = mean and len(mean) == len(std) and all(map(is_number, mean + std)) and min(std) > 0
    if not is_valid:
        raise InvalidInput(
            f"normalization {assumed!r} is neither 'data' nor a mean and a positive standard "
            "deviation of each channel's pixels in [0, 1], such as 0.5/0.5"
        )
    return mean, std
