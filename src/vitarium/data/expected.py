"""What is known of a data set without its files: enough to plan with, and to normalize images."""

from collections.abc import Sequence
from typing import Any

import torch

from vitarium.blueprint import Recipe
from vitarium.core.registry import Section
from vitarium.data.base import DataConfig, Expected
from vitarium.data.splits import fraction_of, num_val

Normalization = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of the pixels in [0, 1], per channel of the model's input."""


def expected(section: Section) -> Expected:
    """What planning may know of a data set: its plug-in's facts, or what the blueprint declares."""
    of_plugin = section.facts.get("expected")
    follows = of_plugin(section.config) if of_plugin else Expected(None, None)
    declared = (_known(section, name) for name in Expected._fields)
    return Expected(*(a or b for a, b in zip(declared, follows, strict=True)))


def normalization(section: Section, channels: int, extra: int = 0) -> Normalization | None:
    """Of the images of a model of `channels`, with `extra` ones after these; None where neither
    plug-in nor blueprint says."""
    mean, std = _known(section, "mean"), _known(section, "std")
    if mean is None or std is None:
        return None
    return per_channel(mean, channels, extra), per_channel(std, channels, extra)


def recipe_normalization(recipe: Recipe) -> Normalization | None:
    """By which a recipe normalizes images: its own, or that of its data set, as `normalization`."""
    channels, extra = recipe.architecture.config.input_size[0], recipe.extra_channels
    if recipe.normalization is None:
        return normalization(recipe.data, channels, extra)
    mean, std = recipe.normalization.values
    return per_channel(mean, channels, extra), per_channel(std, channels, extra)


def train_size(known: Expected, config: DataConfig) -> int | None:
    """Training images that are left when validation images are taken from them; None where their
    number is not known, as of an imbalance or of some classes, which follow from the labels. None
    are taken where there are validation images of their own."""
    by_label = config.imbalance > 1 or config.train_classes is not None
    if known.num_train is None or by_label:
        return None
    left = known.num_train - (0 if known.num_val else num_val(known.num_train, config))
    return fraction_of(min(left, config.train_limit or left), config.train_fraction)


def _known(section: Section, fact: str) -> Any:
    return getattr(section.config, fact, None) or section.plugin.facts.get(fact)


def per_channel(values: Sequence[float], channels: int, extra: int = 0) -> tuple[float, ...]:
    """As images are: colors become the mean of them, gray becomes each of the colors. Of images
    with `extra` channels after these, the first."""
    if extra and len(values) == channels + extra:
        return tuple(values[:channels])
    if len(values) == channels:
        return tuple(values)
    if len(values) == 1:
        return tuple(values) * channels
    return (torch.tensor(values).mean().item(),) * channels
