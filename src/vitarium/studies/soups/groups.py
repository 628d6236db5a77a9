"""Which models of a stage are combined with each other: siblings, parts of them, and cousins."""

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
from vitarium.studies.soups.evaluator import Evaluator
from vitarium.studies.statistics.factors import PARENT, is_seed
from vitarium.studies.statistics.stages import Stage

Kind = Literal["family", "mixed", "part", "across"]
Members = tuple[CheckpointRef, ...]


@dataclass(frozen=True)
class Group:
    """Models that are combined with each other.

    A `family` has one parent, and heads of one shape; `mixed` are children of one parent with heads
    of several shapes; a `part` of either has one value of a factor; `across` are the best of
    several parents.
    """

    kind: Kind
    name: str
    members: Members
    """In order of lineage."""
    parent: str = ""
    factor: str = ""
    value: str = ""

    def __len__(self) -> int:
        return len(self.members)


class SiblingGroups:
    """The models of a stage that have parents, and the groups that they fall into."""

    def __init__(self, sources: ModelLoader, stage: Stage) -> None:
        self.sources, self.stage, self.zoo = sources, stage, sources.zoo
        self.members: dict[str, CheckpointRef] = {}
        for id, parent in zip(stage.ids, stage.parents, strict=True):
            folder = self.zoo.folder(id)
            merged = folder.spec().operator is not None
            if parent and not merged and any(epoch.checkpoint for epoch in folder.epochs()):
                self.members[id] = CheckpointRef(model=id, epoch=folder.checkpoint()[0])
        self._specs = {id: self.zoo.folder(id).spec() for id in self.members}
        self._parents = {id: spec.parent or "" for id, spec in self._specs.items()}
        self._trunks = {id: self._trunk(model) for id, model in self.members.items()}
        self.shapes = {
            id: trunk + json.dumps(self._weights(self.members[id]).shapes, sort_keys=True)
            for id, trunk in self._trunks.items()
        }
        """By model: equal where whole models can be averaged."""
        self.factors = [
            factor
            for factor in stage.factors
            if not factor.name.startswith(PARENT) and not is_seed(factor.name)
        ]
        """What the models differ in; factors of parents, and seeds, which only count, left out."""

    @cached_property
    def _siblings(self) -> list[Members]:
        """Children of one parent whose trunks can be averaged."""
        origins = {id: f"{s.parent}@{s.parent_epoch or 0}" for id, s in self._specs.items()}
        return [
            siblings
            for children in _by_key(list(self.members.values()), origins)
            for siblings in _by_key(children, self._trunks)
        ]

    @cached_property
    def families(self) -> list[Group]:
        """Children of one parent, whose heads have one shape."""
        return [
            self._group("family", children, siblings)
            for siblings in self._siblings
            for children in _by_key(siblings, self.shapes)
            if len(children) > 1
        ]

    @cached_property
    def mixed(self) -> list[Group]:
        """Children of one parent, where their heads have several shapes."""
        return [
            self._group("mixed", siblings, siblings)
            for siblings in self._siblings
            if len(siblings) > 1 and len(_by_key(siblings, self.shapes)) > 1
        ]

    def _group(self, kind: Kind, members: Members, siblings: Members) -> Group:
        parent, common = self._parents[members[0].model], self._common_factors(members, siblings)
        return Group(kind, f"{parent[:8]} · {common}" if common else parent[:8], members, parent)

    @cached_property
    def parts(self) -> list[Group]:
        """Those of a parent's children that share a value of a factor; each set of models once."""
        visited = {group.members for group in [*self.families, *self.mixed]}
        groups = []
        for siblings in self._siblings:
            for factor in self.factors:
                labels = {child.model: factor.labels[child.model] for child in siblings}
                for members in _by_key(siblings, labels):
                    if len(members) > 1 and members not in visited:
                        visited.add(members)
                        value, parent = labels[members[0].model], self._parents[members[0].model]
                        name = f"{parent[:8]} · {factor.name} = {value}"
                        groups.append(Group("part", name, members, parent, factor.name, value))
        return groups

    def across(self, evaluator: Evaluator) -> list[Group]:
        """The best child of each parent by validation, where their heads have one shape."""
        groups = []
        everyone = tuple(self.members.values())
        for members in _by_key(everyone, self.shapes):
            best = tuple(
                max(children, key=lambda model: evaluator.single(model).val_accuracy)
                for children in _by_key(members, self._parents)
            )
            if len(best) > 1:
                common = self._common_factors(members, everyone)
                name = f"best of {len(best)} parents" + (f" · {common}" if common else "")
                groups.append(Group("across", name, best))
        return groups

    def mergeable(self, group: Group) -> bool:
        """Whether the heads have one shape."""
        return len({self.shapes[member.model] for member in group.members}) == 1

    def same_start(self, group: Group) -> bool:
        """Whether the heads started from the same values, as far as these are kept."""
        try:
            starts = [self._weights(member).start for member in group.members]
        except NotApplicable:
            return False
        first = self._weights(group.members[0])
        names = [name for name in first.shapes if is_head(first.skeleton, name)]
        return all(start[name].equal(starts[0][name]) for start in starts for name in names)

    def _common_factors(self, members: Members, everyone: Members) -> str:
        """What some models have in common, and not with the others."""
        texts = []
        for factor in self.factors:
            values = {factor.labels[member.model] for member in members}
            if len(values) == 1 and len({factor.labels[model.model] for model in everyone}) > 1:
                texts.append(f"{factor.name} = {values.pop()}")
        return ", ".join(texts)

    def _weights(self, model: CheckpointRef) -> Weights:
        return self.sources.weights(Target(model.model, model.epoch, ""))

    def _trunk(self, model: CheckpointRef) -> str:
        """Equal where the models can be averaged but for their heads."""
        weights, origin = self._weights(model), self._specs[model.model].origin
        shapes = {n: s for n, s in weights.shapes.items() if not is_head(weights.skeleton, n)}
        data = origin.data.factors() if isinstance(origin, Recipe) else None
        classes = self.zoo.folder(model.model).about().classes
        return json.dumps([shapes, data, classes], sort_keys=True)


def _by_key(members: Sequence[CheckpointRef], keys: Mapping[str, str]) -> list[Members]:
    """Models with equal keys together, in the order in which they come."""
    groups: dict[str, list[CheckpointRef]] = {}
    for model in members:
        groups.setdefault(keys[model.model], []).append(model)
    return [tuple(group) for group in groups.values()]
