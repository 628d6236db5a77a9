"""What is known of a model before it is trained: its outputs, its weights, its images."""

from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from vitarium.blueprint import Recipe
from vitarium.core.devices import meta_device
from vitarium.core.errors import DataNotFound, InvalidData
from vitarium.data.expected import expected, train_size
from vitarium.data.load import load
from vitarium.training._companions import make_companions


def num_classes(recipe: Recipe, data_dir: Path | None = None) -> int | None:
    """Of the data to train on; None where that is not here, and does not say so by its name.

    `data_dir` is searched first.
    """
    classes = expected(recipe.data).num_classes
    if classes is None:
        with suppress(DataNotFound, InvalidData):
            classes = load(recipe.data, data_dir).num_classes
    return classes


def num_outputs(recipe: Recipe, data_dir: Path | None = None) -> int | None:
    """Width of the model's output; None where `num_classes` is."""
    classes, objective = num_classes(recipe, data_dir), recipe.objective
    if classes is None:
        return None
    return objective.plugin.facts["outputs"](objective.config, classes)


class ParameterCounts(NamedTuple):
    """Numbers of a model's parameters: of all, and of those that learn."""

    total: int
    """Without factors of its adaptation, which are merged; with what else that adds."""
    trained: int
    """With factors."""


def parameters(recipe: Recipe, num_outputs: int) -> ParameterCounts:
    """Of a model, counted without allocating them. Raises InvalidInput: see `Recipe.adapt`."""
    key = (recipe.architecture, recipe.head, recipe.adaptation, num_outputs)
    if key not in _counted:
        with meta_device():
            plain, trained = recipe.build(num_outputs), recipe.build(num_outputs, plain=False)
        total = sum(p.numel() for p in plain.parameters())
        learning = sum(p.numel() for p in trained.parameters() if p.requires_grad)
        _counted[key] = ParameterCounts(total, learning)
    return _counted[key]


_counted: dict[Any, ParameterCounts] = {}


def companion_parameters(recipe: Recipe, num_outputs: int, num_classes: int) -> int:
    """Of all that the objective brings beside a model while that is trained, momentum teachers
    included; counted without allocating them. Raises InvalidInput where they do not go together."""
    key = (recipe.architecture, recipe.adaptation, recipe.objective, num_outputs, num_classes)
    if key not in _counted_beside:
        with meta_device():
            model = recipe.build(num_outputs, plain=False)
            companions = make_companions(recipe, model, num_classes)
        count = sum(p.numel() for p in companions.parameters()) if companions else 0
        _counted_beside[key] = count
    return _counted_beside[key]


_counted_beside: dict[Any, int] = {}


def num_train(recipe: Recipe, data_dir: Path | None = None) -> int | None:
    """Images to train on; None where it depends on data that is not here; see `num_outputs`."""
    images = train_size(expected(recipe.data), recipe.data.config)
    if images is not None:
        return images
    try:
        return len(load(recipe.data, data_dir).train)
    except (DataNotFound, InvalidData):
        return None


def steps_per_epoch(recipe: Recipe, data_dir: Path | None = None) -> int | None:
    """Training steps of an epoch; None where it depends on data that is not here."""
    if recipe.steps_per_epoch:
        return recipe.steps_per_epoch
    images = num_train(recipe, data_dir)
    return None if images is None else images // recipe.batch_size
