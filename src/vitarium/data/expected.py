"""What is known of a data set without its files: enough to plan with, and to normalize images."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from vitarium.blueprint import Recipe
from vitarium.core.registry import Section
from vitarium.data.base import DataConfig
from vitarium.data.splits import num_val


class Expected(NamedTuple):
    num_classes: int | None
    num_train: int | None
    """Training images, before validation images are taken from them."""


Normalization = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of the pixels in [0, 1], per channel of the model's input."""


def expected(section: Section) -> Expected:
    """What planning may know of a data set: its plug-in's facts, or what the blueprint declares."""
    return Expected(_known(section, "num_classes"), _known(section, "num_train"))


def normalization(section: Section, channels: int) -> Normalization | None:
    """Of the images of a model of `channels`; None where neither plug-in nor blueprint says."""
    mean, std = _known(section, "mean"), _known(section, "std")
    if mean is None or std is None:
        return None
    return per_channel(mean, channels), per_channel(std, channels)


def recipe_normalization(recipe: Recipe) -> Normalization | None:
    """By which a recipe normalizes images: its own, or that of its data set, as `normalization`."""
    channels = recipe.architecture.config.input_size[0]
    if recipe.normalization is None:
        return normalization(recipe.data, channels)
    mean, std = recipe.normalization.values
    return per_channel(mean, channels), per_channel(std, channels)


def train_size(num_train: int, config: DataConfig) -> int:
    """Training images that are left of `num_train` when validation images are taken from them; none
    are taken where the configuration declares `num_val`: those are apart already."""
    has_val = bool(getattr(config, "num_val", None))
    left = num_train if has_val else num_train - num_val(num_train, config)
    return min(left, config.train_limit or left)


def _known(section: Section, fact: str) -> Any:
    return getattr(section.config, fact, None) or section.plugin.facts.get(fact)


def per_channel(values: Sequence[float], channels: int) -> tuple[float, ...]:
    """As images are: colors become the mean of them, gray becomes each of the colors."""
    if len(values) == channels:
        return tuple(values)
    if len(values) == 1:
        return tuple(values) * channels
    return (torch.tensor(values).mean().item(),) * channels
