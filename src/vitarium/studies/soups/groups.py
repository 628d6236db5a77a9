"""Which models of a stage are combined with each other: siblings, some of them, and cousins."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from vitarium.architectures.heads import is_head
from vitarium.blueprint import CheckpointRef, Recipe
from vitarium.core.errors import NotApplicable
from vitarium.evaluation.checkpoints import Target
from vitarium.evaluation.inputs import Weights
from vitarium.evaluation.loader import ModelLoader
from vitarium.studies.soups.runs import Runs
from vitarium.studies.statistics.factors import PARENT, Factor, is_seed
from vitarium.studies.statistics.population import Stage

Kind = Literal["family", "mixed", "part", "across"]


@dataclass(frozen=True)
class Group:
    """Models that are combined with each other.

    A `family` has one parent, and heads of one shape; `mixed` are children of one parent with heads
    of several shapes; a `part` of either has one value of a factor; `across` are the best of
    several parents.
    """

    kind: Kind
    name: str
    members: tuple[CheckpointRef, ...]
    """In order of lineage."""
    parent: str = ""
    factor: str = ""
    value: str = ""

    def __len__(self) -> int:
        return len(self.members)


class Kinfolk:
    """The models of a stage that have parents, and the groups that they fall into."""

    def __init__(self, sources: ModelLoader, stage: Stage) -> None:
        self.sources, self.stage, self.zoo = sources, stage, sources.zoo
        self.members: dict[str, CheckpointRef] = {}
        for id, parent in zip(stage.ids, stage.parents, strict=True):
            folder = self.zoo.folder(id)
            made = folder.spec().operator is not None
            if parent and not made and any(epoch.checkpoint for epoch in folder.epochs()):
                self.members[id] = CheckpointRef(model=id, epoch=folder.checkpoint()[0])
        self._trunks = {id: self._trunk(one) for id, one in self.members.items()}
        self.shapes = {id: self._whole(one) for id, one in self.members.items()}
        """By model: equal where whole models can be averaged."""

    @property
    def own_factors(self) -> list[Factor]:
        """What the models themselves differ in; seeds, which only count, left out."""
        return [
            factor
            for factor in self.stage.factors
            if not factor.name.startswith(PARENT) and not is_seed(factor.name)
        ]

    @cached_property
    def families(self) -> list[Group]:
        """Children of one parent, whose heads have one shape."""
        return [
            self._named("family", children, within)
            for within in self._brothers
            for children in _alike(within, self.shapes)
            if len(children) > 1
        ]

    @cached_property
    def mixed(self) -> list[Group]:
        """Children of one parent, where their heads have several shapes."""
        return [
            self._named("mixed", children, children)
            for children in self._brothers
            if len(children) > 1 and len(_alike(children, self.shapes)) > 1
        ]

    @cached_property
    def parts(self) -> list[Group]:
        """Those of a parent's children that share a value of a factor; each set of models once."""
        seen = {one.members for one in [*self.families, *self.mixed]}
        found = []
        for children in self._brothers:
            for factor in self.own_factors:
                labels = {one.model: factor.labels[one.model] for one in children}
                for same in _alike(children, labels):
                    if len(same) > 1 and same not in seen:
                        seen.add(same)
                        value, parent = labels[same[0].model], self._parent(same[0])
                        name = f"{parent[:8]} · {factor.name} = {value}"
                        found.append(Group("part", name, same, parent, factor.name, value))
        return found

    def across(self, runs: Runs) -> list[Group]:
        """The best child of each parent by validation, where their heads have one shape."""
        found = []
        for alike in _alike(list(self.members.values()), self.shapes):
            best: dict[str, CheckpointRef] = {}
            for one in alike:
                parent = self._parent(one)
                score = runs.single(one).val_accuracy
                if parent not in best or score > runs.single(best[parent]).val_accuracy:
                    best[parent] = one
            if len(best) > 1:
                several = len(set(self.shapes.values())) > 1
                told = f" · {self._told(alike, list(self.members.values()))}" if several else ""
                name = f"best of {len(best)} parents{told}"
                found.append(Group("across", name, tuple(best.values())))
        return found

    def mergeable(self, group: Group) -> bool:
        """Whether the heads have one shape."""
        return len({self.shapes[one.model] for one in group.members}) == 1

    def same_start(self, group: Group) -> bool:
        """Whether the heads started from the same values, as far as these are kept."""
        try:
            starts = [self._weights(one).start for one in group.members]
        except NotApplicable:
            return False
        first = self._weights(group.members[0])
        names = [name for name in first.shapes if is_head(first.skeleton, name)]
        return all(start[name].equal(starts[0][name]) for start in starts for name in names)

    @cached_property
    def _brothers(self) -> list[tuple[CheckpointRef, ...]]:
        """Children of one parent whose trunks can be averaged."""
        return [
            same
            for children in _alike(
                list(self.members.values()), {id: self._from(id) for id in self.members}
            )
            for same in _alike(children, self._trunks)
        ]

    def _from(self, id: str) -> str:
        spec = self.zoo.folder(id).spec()
        return f"{spec.parent}@{spec.parent_epoch or 0}"

    def _parent(self, one: CheckpointRef) -> str:
        return self.zoo.folder(one.model).spec().parent or ""

    def _named(
        self, kind: Kind, members: tuple[CheckpointRef, ...], within: Sequence[CheckpointRef]
    ) -> Group:
        parent = self._parent(members[0])
        told = self._told(members, within) if len(members) < len(within) else ""
        return Group(kind, f"{parent[:8]} · {told}" if told else parent[:8], members, parent)

    def _told(self, members: Sequence[CheckpointRef], within: Sequence[CheckpointRef]) -> str:
        """What some models have in common, and not with the others."""
        found = []
        for factor in self.own_factors:
            values = {factor.labels[one.model] for one in members}
            if len(values) == 1 and len({factor.labels[one.model] for one in within}) > 1:
                found.append(f"{factor.name} = {values.pop()}")
        return ", ".join(found)

    def _weights(self, one: CheckpointRef) -> Weights:
        return self.sources.weights(Target(one.model, one.epoch, ""))

    def _trunk(self, one: CheckpointRef) -> str:
        weights = self._weights(one)
        shapes = {n: s for n, s in weights.shapes.items() if not is_head(weights.skeleton, n)}
        origin = self.zoo.folder(one.model).spec().origin
        data = origin.data.factors() if isinstance(origin, Recipe) else None
        classes = self.zoo.folder(one.model).about().classes
        return json.dumps([shapes, data, classes], sort_keys=True)

    def _whole(self, one: CheckpointRef) -> str:
        return self._trunk(one) + json.dumps(self._weights(one).shapes, sort_keys=True)


def _alike(
    members: Sequence[CheckpointRef], keys: Mapping[str, str]
) -> list[tuple[CheckpointRef, ...]]:
    """Models with equal keys together, in the order in which they come."""
    found: dict[str, list[CheckpointRef]] = {}
    for one in members:
        found.setdefault(keys[one.model], []).append(one)
    return [tuple(same) for same in found.values()]
