"""What a model of a zoo is: the spec from which its id is computed."""

import hashlib
import json
import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
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
    differing: tuple[str, ...] = ()
    """Factors, by dotted name, in which the ingredients differ: they stand in the origin, which is
    that of one ingredient, and are no factors of this model. No part of the id, which the
    ingredients decide."""

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
            type(self.origin).__name__.lower(): self.origin.identity(),
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

    @property
    def initial_epoch(self) -> int | None:
        """The epoch whose weights are those before training, if there is one (`initial_epoch`)."""
        return initial_epoch(self.factors())

    def described(self) -> dict[str, Any]:
        """Every generating factor by its dotted name, on one level; see `described`."""
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
        differing: Sequence[str] = (),
    ) -> Self:
        """The spec of what an operator makes of ingredients, one of which has this recipe.

        `base` is what they started from, where the operator looks at that; `changes` are sections
        of the recipe that differ in the result; `differing`: see `Spec.differing`.
        """
        origin, (parent, epoch) = self.origin.changed(changes or {}), base or (None, None)
        values: dict[str, Any] = {"stage": stage, "operator": operator}
        values |= {type(origin).__name__.lower(): origin}
        values |= {"parent": parent, "parent_epoch": epoch, "ingredients": ingredients}
        return type(self).model_validate({**values, "heads": heads, "differing": differing})


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
    """As `Spec.described`, of what `Spec.factors` gave: without importing any plug-in.

    Of a model that an operator made they are the operator with its settings, and what all of its
    ingredients have in common.
    """
    if "imported" in values:
        factors = described_import(values["imported"])
    else:
        factors = flatten(values["recipe"])
        if values["conversion"]:
            factors |= flatten({"conversion": values["conversion"]})
    if not values["operator"]:
        return factors
    shared = {k: v for k, v in factors.items() if k not in values["differing"]}
    return flatten({"operator": values["operator"]}) | shared


def differing_factors(factors: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names whose values are not equal in all of these, or which some of them lack."""
    first = factors[0]
    names = dict.fromkeys(name for values in factors for name in values)
    absent = object()
    return [n for n in names if any(v.get(n, absent) != first.get(n, absent) for v in factors)]


def initial_epoch(values: Mapping[str, Any]) -> int | None:
    """Of what `Spec.factors` gave: the epoch whose weights are those before training.

    Of a model that is trained here it is epoch 0 (random weights, or what the parent gave); of one
    that was trained elsewhere it is what the importer knew, and None where that is nothing, however
    its epochs are numbered; of one that an operator made there is none.
    """
    if values["operator"]:
        return None
    return values["imported"]["initial_epoch"] if "imported" in values else 0


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
