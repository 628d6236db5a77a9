"""Whether lineage that is recovered from weights has twins as children of their parents."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from vitarium.blueprint import CheckpointRef
from vitarium.core.errors import VitariumError
from vitarium.lineage.base import Forest
from vitarium.lineage.recover import recover
from vitarium.studies.base import Population
from vitarium.studies.twins.families import Twin

Verdict = Literal[
    "parent", "tied", "original", "child", "related", "another", "root", "not compared"
]


class Recovery(NamedTuple):
    """What is recovered of a twin.

    verdict: "parent": the model that it was made of; "tied": one with equal weights as that;
    "original": an earlier ancestor; "child": the edge is there, in the other direction; "related":
    no such edge, but the same tree; "another": a model of another tree; "root"; "not compared".
    """

    verdict: Verdict
    parent: str = ""
    """The recovered one."""
    confidence: float | None = None
    why: str = ""
    """It was not compared."""

    @property
    def is_right(self) -> bool:
        return self.verdict in ("parent", "tied")


def recoveries(
    population: Population, twins: Mapping[CheckpointRef, Sequence[Twin]], method: str
) -> dict[str, Recovery]:
    """By id of the twin; beside twins and originals all models of the population are compared."""
    listed = [twin for family in twins.values() for twin in family]
    models = {*population.ids, *(ref.model for ref in twins), *(t.ref.model for t in listed)}
    models |= {
        twin.parent.model for twin in listed if population.zoo.folder(twin.parent.model).exists
    }
    try:
        recovered = recover(
            population.zoo, method, models=sorted(models), progress=population.progress
        )
    except VitariumError as error:
        return {twin.ref.model: Recovery("not compared", why=str(error)) for twin in listed}
    return {
        twin.ref.model: _recovery(twin, recovered.forest, recovered.left_out) for twin in listed
    }


def _recovery(twin: Twin, forest: Forest, left_out: Mapping[str, str]) -> Recovery:
    model, parent = twin.ref.model, twin.parent.model
    tree = dict(zip(forest.models, forest.families, strict=True))
    if model not in tree or parent not in tree:
        why = next((left_out[id] for id in (model, parent) if id in left_out), "")
        return Recovery("not compared", why=why)
    edges = forest.parents[model]
    equal = next((set(group) for group in forest.tied if parent in group), {parent})
    if parent in edges:
        return Recovery("parent", parent, edges[parent].confidence)
    if near := sorted(equal & edges.keys()):
        return Recovery("tied", near[0], edges[near[0]].confidence)
    if model in equal:
        return Recovery("tied", next(iter(edges), ""), forest.confidence(model))
    if twin.original.model in edges:
        original = twin.original.model
        return Recovery("original", original, edges[original].confidence)
    if model in forest.parents[parent]:
        return Recovery("child", "", forest.parents[parent][model].confidence)
    if not edges:
        related = tree[model] == tree[parent]
        return Recovery("related" if related else "root", "", forest.confidence(model))
    nearest = max(edges.values(), key=lambda edge: edge.confidence)
    verdict: Verdict = "related" if tree[model] == tree[parent] else "another"
    return Recovery(verdict, nearest.parent, nearest.confidence)
