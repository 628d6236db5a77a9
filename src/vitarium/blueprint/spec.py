"""What a model of a zoo is: the spec from which its id is computed."""

import hashlib
import json
import re
from abc import abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Self

from pydantic import Field, NonNegativeInt

from vitarium.blueprint.recipe import Imported, Recipe, described_import, flatten
from vitarium.core.checkpoint_ref import MODEL_ID, CheckpointRef
from vitarium.core.config import Config, InvalidConfig, Problem
from vitarium.core.printable import encodable
from vitarium.core.registry import Section, SectionOf

ModelId = Annotated[str, Field(pattern=MODEL_ID)]


class Spec(Config):
    """One model of a zoo: where it comes from, and what it starts from or is made of."""

    stage: str
    parent: ModelId | None = None
    """Id of the model whose weights it starts from, or to which an operator added what its
    ingredients learned; None: from scratch."""
    parent_epoch: NonNegativeInt | None = None
    operator: Annotated[Section, SectionOf("operator")] | None = None
    """What made it of its ingredients; None: it is trained."""
    ingredients: tuple[CheckpointRef, ...] = ()
    heads: str | None = None
    """What became of the ingredients' heads: "average", "ensemble" or the `ID@EPOCH` of the one
    that was kept; None: the operator combined them like all other weights."""

    @property
    @abstractmethod
    def origin(self) -> Recipe | Imported:
        """How it is trained, or what is known of one that was trained elsewhere; of a model that
        an operator made, that of one of its ingredients, with what the operator changed."""

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
            content["ingredients"] = [ref._asdict() for ref in self.ingredients]
        if self.heads:
            content["heads"] = self.heads
        content |= self._start()
        # as it is when it is read again: UTF-8 has no halves of surrogate pairs
        text = json.dumps(encodable(content), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def _start(self) -> dict[str, Any]:
        """How it starts from its parent, where that is not as usual."""
        return {}

    def described(self) -> dict[str, Any]:
        """Every generating factor by its dotted name, on one level."""
        return described(self.factors())

    def factors(self, *, defaults: bool = True) -> dict[str, Any]:
        return {**super().factors(defaults=defaults), "id": self.id}

    @classmethod
    def restore(cls, values: Mapping[str, Any]) -> Self:
        """Read what `factors` wrote. Raises InvalidConfig."""
        return cls.read({key: value for key, value in values.items() if key != "id"})

    def combined(
        self,
        operator: Section,
        ingredients: tuple[CheckpointRef, ...],
        *,
        stage: str,
        base: CheckpointRef | None = None,
        heads: str | None = None,
        changes: Mapping[str, Section] | None = None,
    ) -> Self:
        """The spec of what an operator makes of ingredients, one of which has this recipe.

        `base` is what they started from, where the operator looks at that; `changes` are sections
        of the recipe that differ in the result.
        """
        origin, (parent, epoch) = self.origin.changed(changes or {}), base or (None, None)
        values: dict[str, Any] = {"stage": stage, "operator": operator}
        values |= {type(origin).__name__.lower(): origin}
        values |= {"parent": parent, "parent_epoch": epoch}
        return type(self).model_validate({**values, "ingredients": ingredients, "heads": heads})


class ModelSpec(Spec):
    """A model that is trained here: its recipe, the stage that asks for it, and its parent."""

    recipe: Recipe
    conversion: Annotated[Section, SectionOf("operator")] | None = None
    """Makes of the parent what training starts from, e.g. a model of another architecture."""
    keep_head: bool = False
    """Training starts from the parent's head, too; otherwise from a new one."""

    @property
    def origin(self) -> Recipe:
        return self.recipe

    def _start(self) -> dict[str, Any]:
        converted = self.conversion.factors(defaults=False) if self.conversion else None
        start = {"conversion": converted, "keep_head": self.keep_head}
        return {name: value for name, value in start.items() if value}


class ImportedSpec(Spec):
    """A model that was trained elsewhere."""

    imported: Imported

    @property
    def origin(self) -> Imported:
        return self.imported


def restored(values: Mapping[str, Any]) -> Spec:
    """Read what `factors` of whichever kind of spec wrote. Raises InvalidConfig."""
    if not isinstance(values, Mapping):
        raise InvalidConfig([Problem((), f"{values!r} is no spec of a model")])
    kind: type[Spec] = ImportedSpec if "imported" in values else ModelSpec
    return kind.restore(values)


def described(values: Mapping[str, Any]) -> dict[str, Any]:
    """As `Spec.described`, of what `Spec.factors` gave: without importing any plug-in."""
    if "imported" in values:
        return described_import(values["imported"])
    conversion = values["conversion"]
    changed = flatten({"conversion": conversion}) if conversion else {}
    return flatten(values["recipe"]) | changed


def is_complete(values: Any) -> bool:
    """Whether this is what `Spec.factors` gives, with every field that there is today.

    Without importing plug-ins: it looks not at their settings, nor at the id.
    """
    if not isinstance(values, dict):
        return False
    is_imported = "imported" in values
    kind, origin = (ImportedSpec, Imported) if is_imported else (ModelSpec, Recipe)
    settings = values.get("imported" if is_imported else "recipe")
    if not isinstance(settings, dict) or values.keys() != {*kind.model_fields, "id"}:
        return False
    parent, parent_epoch = values["parent"], values["parent_epoch"]
    return (
        settings.keys() == origin.model_fields.keys()
        and isinstance(values["stage"], str)
        and (parent is None or (isinstance(parent, str) and bool(re.match(MODEL_ID, parent))))
        and (parent_epoch is None or type(parent_epoch) is int)
    )
