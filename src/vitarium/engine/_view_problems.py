"""Whether the views that an objective compares differ from each other at all."""

from collections.abc import Iterator

import torch

from vitarium.blueprint import Recipe
from vitarium.core.config import Problem

_DRAWS = 32
"""Of views of an image; where these are all the same, nothing of the augmentation is random."""


def view_problems(recipe: Recipe, num_classes: int) -> Iterator[Problem]:
    """An objective of two views is taught nothing by two that are the same.

    Two modalities differ by themselves.
    """
    if recipe.objective.facts.get("views", 1) < 2 or recipe.extra_channels:
        return
    if not _views_are_equal(recipe, num_classes):
        return
    yield Problem(
        ("augmentation",),
        f"objective '{recipe.objective.name}' compares views of an image, and all views by this "
        "augmentation are the same: choose one that draws, e.g. simclr, multi_crop, or "
        "{name: standard, crop: random_resized}",
    )


def _views_are_equal(recipe: Recipe, num_classes: int) -> bool:
    size = recipe.image_size
    augmentation = recipe.augmentation(size, num_classes)
    if augmentation.other_views:
        return False
    generator = torch.Generator().manual_seed(0)
    shape = (_DRAWS, augmentation.numbers)
    numbers = torch.rand(shape, dtype=torch.float64, generator=generator)
    images = torch.rand(1, *size, generator=generator).expand(_DRAWS, -1, -1, -1)
    framed = augmentation.frame(numbers, *size[1:]).cut(images)
    changes = augmentation.changes or (augmentation.change,)
    views = torch.cat([change(framed, numbers) for change in changes])
    return bool((views == views[:1]).all())
