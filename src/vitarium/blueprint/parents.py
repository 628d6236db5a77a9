"""What a stage starts from: models of an earlier stage, or of the zoo that is grown."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vitarium.blueprint.blueprint import Start
from vitarium.blueprint.imported import Imported
from vitarium.blueprint.recipe import Recipe
from vitarium.blueprint.spec import ModelSpec


@dataclass(frozen=True)
class Parent:
    """A model that others start from."""

    id: str
    origin: Recipe | Imported
    epochs: tuple[int, ...]
    """Epochs whose weights there are, or will be; the last one is what children start from."""


Find = Callable[[Start], Sequence[Parent]]
"""Finds what a start names in a zoo."""


def grown(spec: ModelSpec) -> Parent:
    """A model of a stage, grown or not."""
    return Parent(spec.id, spec.recipe, tuple(spec.recipe.kept_epochs))
