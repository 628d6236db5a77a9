"""Which models of a stage are combined with each other: siblings, parts of them, and cousins."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from vitarium.architectures.heads import is_head
from vitarium.blueprint import CheckpointRef, Recipe
from vitarium.core.errors import NotApplicable
from vitarium.evaluation.compatible import mismatch
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

    A `family` are children of one parent with heads of one shape, `mixed` with heads of several; a
    `part` of either has one value of a factor; `across` are the best of several parents.
    """

    kind: Kind
    name: str
    members: Members  # in order of lineage
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
            spec = folder.spec()
            parts = (spec.origin.architecture, spec.origin.head)
            usable = not spec.operator and not any(part and part.is_missing for part in parts)
            if parent and usable and any(epoch.checkpoint for epoch in folder.epochs()):
                self.members[id] = CheckpointRef(model=id, epoch=folder.checkpoint()[0])
        specs = {id: self.zoo.folder(id).spec() for id in self.members}
        self._parents = {id: spec.parent or "" for id, spec in specs.items()}
        weights = {id: sources.weights(model) for id, model in self.members.items()}
        trunks = {id: self._trunk(model) for id, model in self.members.items()}
        trunks = _by_architecture(trunks, weights, head=False)
        shapes = {
            id: trunk + json.dumps(weights[id].shapes, sort_keys=True)
            for id, trunk in trunks.items()
        }
        self.shapes = _by_architecture(shapes, weights, head=True)
        """By model: equal where whole models can be averaged."""
        self.factors = [
            f for f in stage.factors if not (f.name.startswith(PARENT) or is_seed(f.name))
        ]
        """What the models differ in; factors of parents, and seeds, which only count, left out."""
        origins = {id: f"{spec.parent}@{spec.parent_epoch or 0}" for id, spec in specs.items()}
        self._siblings = [
            siblings
            for children in _by_key(list(self.members.values()), origins)
            for siblings in _by_key(children, trunks)
        ]
        """Children of one parent whose trunks can be averaged."""
        self.families: list[Group] = []  # those whose heads have one shape
        self.mixed: list[Group] = []
        """All of a parent's children, where their heads have several shapes."""
        for siblings in self._siblings:
            by_shape = _by_key(siblings, self.shapes)
            for members in by_shape:
                if len(members) > 1:
                    self.families.append(self._group("family", members, siblings))
            if len(by_shape) > 1:
                self.mixed.append(self._group("mixed", siblings, siblings))

    def _group(self, kind: Kind, members: Members, siblings: Members) -> Group:
        words = [self._parents[members[0].model][:8], self._common_factors(members, siblings)]
        return Group(kind, " · ".join(filter(None, words)), members)

    def _common_factors(self, members: Members, everyone: Members) -> str:
        """What some models have in common, and not with the others."""
        texts = []
        for factor in self.factors:
            values = {factor.labels[member.model] for member in members}
            if len(values) == 1 and len({factor.labels[model.model] for model in everyone}) > 1:
                texts.append(f"{factor.name} = {values.pop()}")
        return ", ".join(texts)

    def parts(self) -> list[Group]:
        """Those of a parent's children that share a value of a factor; each set of models once."""
        visited = {group.members for group in [*self.families, *self.mixed]}
        groups = []
        for siblings in self._siblings:
            parent = self._parents[siblings[0].model][:8]
            for factor in self.factors:
                for members in _by_key(siblings, factor.labels):
                    if len(members) > 1 and members not in visited:
                        visited.add(members)
                        value = factor.labels[members[0].model]
                        name = f"{parent} · {factor.name} = {value}"
                        groups.append(Group("part", name, members, factor.name, value))
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
                words = [f"best of {len(best)} parents", self._common_factors(members, everyone)]
                groups.append(Group("across", " · ".join(filter(None, words)), best))
        return groups

    def mergeable(self, group: Group) -> bool:
        """Whether the heads have one shape."""
        return len({self.shapes[member.model] for member in group.members}) == 1

    def same_start(self, group: Group) -> bool:
        """Whether the heads started from the same values, as far as these are kept."""
        try:
            starts = [self.sources.weights(member).start for member in group.members]
        except NotApplicable:
            return False
        first = self.sources.weights(group.members[0])
        names = [name for name in first.shapes if is_head(first.skeleton, name)]
        return all(start[name].equal(starts[0][name]) for start in starts for name in names)

    def _trunk(self, model: CheckpointRef) -> str:
        """Equal where the models can be averaged but for their heads."""
        weights, folder = self.sources.weights(model), self.zoo.folder(model.model)
        shapes = {n: s for n, s in weights.shapes.items() if not is_head(weights.skeleton, n)}
        origin = folder.spec().origin
        data = origin.data.factors() if isinstance(origin, Recipe) else None
        return json.dumps([shapes, data, folder.about().classes], sort_keys=True)


def _by_architecture(
    keys: Mapping[str, str], weights: Mapping[str, Weights], *, head: bool
) -> dict[str, str]:
    """The models' keys, made different where their architectures are."""
    firsts: dict[str, list[str]] = {}
    refined = {}
    for id, key in keys.items():
        group = firsts.setdefault(key, [])
        same = (first for first in group if not mismatch(weights[first], weights[id], head=head))
        first = next(same, id)
        if first == id:
            group.append(id)
        refined[id] = f"{key} {first}"
    return refined


def _by_key(members: Sequence[CheckpointRef], keys: Mapping[str, str]) -> list[Members]:
    """Models with equal keys together, in the order in which they come."""
    groups: dict[str, list[CheckpointRef]] = {}
    for model in members:
        groups.setdefault(keys[model.model], []).append(model)
    return [tuple(group) for group in groups.values()]
