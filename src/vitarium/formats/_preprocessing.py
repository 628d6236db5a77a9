"""How an image becomes what a model was trained on: other programs have to be told."""

from collections.abc import Mapping
from typing import Any, NamedTuple

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


class Preprocessing(NamedTuple):
    """An image is resized, its middle is cropped, and it is normalized."""

    input_size: tuple[int, int, int]  # channels, height and width of what the model sees
    resize: int  # the shorter side of the whole image, in pixels, before the crop
    interpolation: str
    mean: tuple[float, ...]  # of the pixels in [0, 1], per channel; so is std
    std: tuple[float, ...]


def preprocessing(spec: Spec, config: Preprocessed) -> Preprocessing:
    """As for scoring. Raises InvalidInput where the normalization is neither known nor set."""
    architecture = spec.origin.architecture
    assert architecture
    size: tuple[int, int, int] = architecture.config.input_size
    factors = spec.described()
    resize = factors.get("augmentation.resize") or min(size[1:])
    interpolation = factors.get("augmentation.interpolation") or "bilinear"
    mean_and_std = _normalization(spec, factors, size[0], config)
    return Preprocessing(size, resize, interpolation, *mean_and_std)


def _normalization(
    spec: Spec, factors: Mapping[str, Any], channels: int, config: Preprocessed
) -> Normalization:
    if config.mean and config.std:
        for values in (config.mean, config.std):
            if len(values) != channels:
                what = f"model {spec.id} takes images of {channels} channels"
                raise InvalidInput(f"{what}, but the normalization has {len(values)}")
        return config.mean, config.std
    if isinstance(spec.origin, Recipe):
        if mean_and_std := normalization(spec.origin.data, channels):
            return mean_and_std
    elif (mean := factors.get("data.mean")) and (std := factors.get("data.std")):
        return tuple(mean), tuple(std)
    raise InvalidInput(
        f"model {spec.id}: nothing is known of how its images were normalized; say it with "
        "the settings mean and std, e.g. --set mean=[0.5,0.5,0.5] --set std=[0.5,0.5,0.5]"
    )
