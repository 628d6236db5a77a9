"""How an image becomes what a model was trained on: other programs have to be told."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import PositiveFloat

from vitarium.blueprint import Recipe, Spec
from vitarium.core.config import Config
from vitarium.core.errors import InvalidInput
from vitarium.data.expected import Normalization, normalization


class Preprocessed(Config):
    """Base of an exporter's configuration that tells how images are prepared."""

    mean: tuple[float, ...] | None = None
    """Of the pixels in [0, 1], per channel; needed only where the zoo does not know it."""
    std: tuple[PositiveFloat, ...] | None = None
    """As mean."""


@dataclass(frozen=True)
class Preprocessing:
    """An image is resized, its middle is cropped, and it is normalised.

    input_size: channels, height and width of what the model sees.
    resize: the shorter side of the whole image, in pixels, before the crop.
    mean, std: of the pixels in [0, 1], per channel.
    """

    input_size: tuple[int, int, int]
    resize: int
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


def preprocessing(spec: Spec, config: Preprocessed) -> Preprocessing:
    """How images are prepared for a model when it is scored.

    Raises InvalidInput for a model whose normalisation is neither known nor set.
    """
    architecture = spec.origin.architecture
    assert architecture
    size: tuple[int, int, int] = architecture.config.input_size
    factors = spec.origin.described()
    mean, std = _normalization(spec, factors, size[0], config)
    return Preprocessing(
        input_size=size,
        resize=factors.get("augmentation.resize") or min(size[1:]),
        interpolation=factors.get("augmentation.interpolation") or "bilinear",
        mean=mean,
        std=std,
    )


def _normalization(
    spec: Spec, factors: Mapping[str, Any], channels: int, config: Preprocessed
) -> Normalization:
    if config.mean and config.std:
        for values in (config.mean, config.std):
            if len(values) != channels:
                raise InvalidInput(
                    f"model {spec.id} takes images of {channels} channels, but the normalisation "
                    f"has {len(values)}"
                )
        return config.mean, config.std
    if isinstance(spec.origin, Recipe):
        if mean_and_std := normalization(spec.origin.data, channels):
            return mean_and_std
    elif (mean := factors.get("data.mean")) and (std := factors.get("data.std")):
        return tuple(mean), tuple(std)
    raise InvalidInput(
        f"model {spec.id}: nothing is known of how its images were normalised; say it with "
        "the settings mean and std, e.g. --set mean=[0.5,0.5,0.5] --set std=[0.5,0.5,0.5]"
    )
