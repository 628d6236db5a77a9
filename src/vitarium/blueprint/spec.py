"""What a model of a zoo is: the spec from which its id is computed."""

import hashlib
import json
from abc import abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Self

from pydantic import NonNegativeInt

from vitarium.blueprint.imported import Imported
from vitarium.blueprint.recipe import Recipe
from vitarium.config import Config
from vitarium.registry import Section, SectionOf


class Ingredient(Config):
    """A model of the zoo after an epoch, from which an operator makes another."""

    model: str
    epoch: NonNegativeInt


class Spec(Config):
    """One model of a zoo: where it comes from, and what it starts from or is made of."""

    stage: str
    parent: str | None = None
    """Id of the model whose weights it starts from; None: from scratch."""
    parent_epoch: NonNegativeInt | None = None
    operator: Annotated[Section, SectionOf("operator")] | None = None
    """What made it of its ingredients; None: it is trained."""
    ingredients: tuple[Ingredient, ...] = ()

    @property
    @abstractmethod
    def origin(self) -> Recipe | Imported:
        """How it is trained, or what is known of one that was trained elsewhere; of a model that
        an operator made, its first ingredient's."""

    @cached_property
    def id(self) -> str:
        """Twelve hexadecimal digits: a hash of what decides the weights, parent included.

        Neither the stage's name nor the order of keys counts; factors at their default are left
        out, so that a factor which a later version adds changes no id.
        """
        content: dict[str, Any] = {
            type(self.origin).__name__.lower(): self.origin.factors(defaults=False),
            "parent": self.parent,
            "parent_epoch": self.parent_epoch,
        }
        if self.operator:
            content["operator"] = self.operator.factors(defaults=False)
            content["ingredients"] = [one.factors() for one in self.ingredients]
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def factors(self, *, defaults: bool = True) -> dict[str, Any]:
        return {**super().factors(defaults=defaults), "id": self.id}

    @classmethod
    def restore(cls, values: Mapping[str, Any]) -> Self:
        """Read what `factors` wrote. Raises InvalidConfig."""
        return cls.read({key: value for key, value in values.items() if key != "id"})

    def combined(
        self, operator: Section, ingredients: tuple[Ingredient, ...], *, stage: str
    ) -> Self:
        """The spec of what an operator makes of ingredients, the first of which is this model."""
        origin = {type(self.origin).__name__.lower(): self.origin}
        return type(self).model_validate(
            {"stage": stage, **origin, "operator": operator, "ingredients": ingredients}
        )


class ModelSpec(Spec):
    """A model that is trained here: its recipe, the stage that asks for it, and its parent."""

    recipe: Recipe

    @property
    def origin(self) -> Recipe:
        return self.recipe


class ImportedSpec(Spec):
    """A model that was trained elsewhere."""

    imported: Imported

    @property
    def origin(self) -> Imported:
        return self.imported


def restored(values: Mapping[str, Any]) -> Spec:
    """Read what `factors` of whichever kind of spec wrote. Raises InvalidConfig."""
    kind: type[Spec] = ImportedSpec if "imported" in values else ModelSpec
    return kind.restore(values)
