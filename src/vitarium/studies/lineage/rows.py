"""A recovered forest as people look at it: a row per model, and what is right of each edge."""

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from scipy.cluster.hierarchy import DisjointSet

from vitarium.core.printable import printable, shortened
from vitarium.lineage.forest import Edge, Forest
from vitarium.lineage.recover import Recovered
from vitarium.studies.report.trees import places

Truth = Mapping[str, tuple[str, ...]]
"""True parents of each model of which they are known."""
RIGHT, TIED, WRONG, MISSED = "right", "right but for a tie", "wrong", "true, but missed"
UNKNOWN = "recovered"
"""Of an edge of which the truth is not known."""
DOUBTFUL = 0.9
"""An edge of a lower confidence is pointed out."""
_ID = re.compile(r"[0-9a-f]{12,}(@\d+)?")
_LONGEST = 34
_MAX_LENGTH = 300
"""Characters of what is known of a model."""


def shown(model: str) -> str:
    """A model's name as people read it: of a zoo's ids eight digits, of long names both ends."""
    if _ID.fullmatch(model):
        id, at, epoch = model.partition("@")
        return id[:8] + at + epoch
    plain = printable(model)
    if len(plain) <= _LONGEST:
        return plain
    return f"{plain[: _LONGEST // 3]}…{plain[-(2 * _LONGEST) // 3 + 1 :]}"


@dataclass(frozen=True)
class Row:
    """Where a model stands in the picture of a forest."""

    model: str
    row: int
    """Counted from the top: each model stands above its descendants."""
    last: int
    """The row of its last descendant, or its own."""
    depth: int
    family: int
    above: str | None
    """The parent it is drawn below: of several the one with the largest share."""


@dataclass(frozen=True)
class Link:
    """An edge of a forest, or a true one that it lacks."""

    parent: str
    child: str
    status: str
    edge: Edge | None = None
    """None: a true edge that was missed."""


@dataclass(frozen=True)
class Judged:
    """A forest beside the truth.

    Args:
        forest: no circle among its edges.
        truth: true parents; None where nothing is known, and a model may be missing in it.
        words: by model, what is known of it beside its name; for the order of rows.
    """

    forest: Forest
    truth: Truth | None
    words: Mapping[str, str]

    @cached_property
    def rows(self) -> list[Row]:
        """The largest families first, siblings by what is known of them and by name."""
        sizes = {family: len(tree) for family, tree in enumerate(self.forest.trees)}
        numbers = dict(zip(self.forest.models, self._numbers, strict=True))
        above = {model: _above(edges) for model, edges in self.forest.parents.items()}
        order = sorted(
            self.forest.models,
            key=lambda m: (-sizes[numbers[m]], numbers[m], self.words.get(m, ""), m),
        )
        found = places({model: above[model] for model in order})
        last = [place.row for place in found]
        row_of = {place.model: place.row for place in found}
        for place in reversed(found):
            if place.parent is not None:
                parent = row_of[place.parent]
                last[parent] = max(last[parent], last[place.row])
        return [
            Row(p.model, p.row, last[p.row], p.depth, numbers[p.model], p.parent) for p in found
        ]

    @property
    def _numbers(self) -> list[int]:
        """Families, counted from 0 without gaps."""
        known = {number: place for place, number in enumerate(sorted(set(self.forest.families)))}
        return [known[number] for number in self.forest.families]

    @cached_property
    def links(self) -> list[Link]:
        """Every edge of the forest, and then the true ones that it lacks."""
        found = [
            Link(edge.parent, edge.child, self._status(edge), edge) for edge in self.forest.edges
        ]
        return [*found, *self._missed()]

    @cached_property
    def edges(self) -> list[tuple[Edge, str]]:
        """With whether they are right."""
        return [(link.edge, link.status) for link in self.links if link.edge]

    @cached_property
    def statuses(self) -> dict[str, str]:
        """Of models: right where all parents are the true ones, and none is missing."""
        return {model: self._of_model(model) for model in self.forest.models}

    @cached_property
    def roots(self) -> list[str]:
        """Models without parents."""
        return [model for model, parents in self.forest.parents.items() if not parents]

    @cached_property
    def mixtures(self) -> list[str]:
        """Models of several parents."""
        return [model for model, parents in self.forest.parents.items() if len(parents) > 1]

    def true_parents(self, model: str) -> tuple[str, ...] | None:
        """None where nobody knows."""
        return None if self.truth is None else self.truth.get(model)

    @cached_property
    def _group(self) -> dict[str, frozenset[str]]:
        """Of a model, all that its weights do not tell apart from it."""
        found = {model: frozenset([model]) for model in self.forest.models}
        for tied in self.forest.tied:
            found |= dict.fromkeys(tied, frozenset(tied))
        return found

    def _like(self, model: str) -> frozenset[str]:
        return self._group.get(model, frozenset([model]))

    def _status(self, edge: Edge) -> str:
        true = self.true_parents(edge.child)
        if self.truth is None or true is None:
            return UNKNOWN
        if edge.parent in true:
            return RIGHT
        near = (self.truth.get(child, ()) for child in self._like(edge.child))
        return TIED if any(self._like(edge.parent) & set(parents) for parents in near) else WRONG

    def _of_model(self, model: str) -> str:
        true = self.true_parents(model)
        if self.truth is None or true is None:
            return UNKNOWN
        found = set(self.forest.parents[model])
        if found == set(true):
            return RIGHT
        groups = {self._like(parent) for parent in found}
        for other in self._like(model):
            parents = self.truth.get(other)
            if parents is not None and {self._like(p) for p in parents} == groups:
                return TIED
        return WRONG

    def _missed(self) -> Iterator[Link]:
        for child, parents in (self.truth or {}).items():
            if child not in self.forest.parents:
                continue
            for parent in parents:
                if parent in self.forest.parents and parent not in self.forest.parents[child]:
                    yield Link(parent, child, MISSED)


def _above(edges: Mapping[str, Edge]) -> str | None:
    chosen = min(edges.values(), key=lambda edge: (-edge.share, edge.parent), default=None)
    return chosen.parent if chosen else None


def judged(recovered: Recovered) -> dict[str, Judged]:
    """Every method's forest beside the truth, the method's own first."""
    words = words_of(recovered.info)
    forests = {recovered.forest.method: recovered.forest}
    forests |= {name: forest for name, (forest, _) in recovered.others.items()}
    return {name: Judged(forest, recovered.truth, words) for name, forest in forests.items()}


def true_forest(recovered: Recovered, name: str) -> Judged | None:
    """The truth as a forest of its own, which is right and of no confidence."""
    truth = recovered.truth
    if truth is None:
        return None
    models = recovered.forest.models
    edges = [
        Edge(parent, child, math.nan, share=1 / len(truth[child]))
        for child in models
        for parent in truth.get(child, ())
        if parent in recovered.forest.parents
    ]
    kin = DisjointSet(models)
    for edge in edges:
        kin.merge(edge.parent, edge.child)
    numbers: dict[str, int] = {}
    families = [numbers.setdefault(kin[model], len(numbers)) for model in models]
    forest = Forest(name, models, families, edges, {})
    return Judged(forest, truth, words_of(recovered.info))


def words_of(info: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """What is known of models beside their names, in a few words: `finetune  lr=0.01`.

    A factor that all models of a stage have in common tells none of them from another.
    """
    values: dict[tuple[Any, str], set[str]] = defaultdict(set)
    for of in info.values():
        for name, value in _factors(of).items():
            values[of.get("stage"), name].add(str(value))
    found = {}
    for model, of in info.items():
        varying = {
            name: value
            for name, value in _factors(of).items()
            if len(values[of.get("stage"), name]) > 1
        }
        told = told_of({**of, "factors": varying or None} if _factors(of) else of)
        found[model] = "  ".join(told[key] for key in ("stage", "factors") if key in told)
    return found


def _factors(info: Mapping[str, Any]) -> Mapping[str, Any]:
    factors = info.get("factors")
    return factors if isinstance(factors, Mapping) else {}


def told_of(info: Mapping[str, Any]) -> dict[str, str]:
    """What is known of a model, in short texts."""
    found = {}
    for key in ("stage", "factors", "epoch", "accuracy", "file"):
        value = info.get(key)
        if isinstance(value, Mapping):
            value = " ".join(f"{name}={of}" for name, of in value.items())
        if isinstance(value, float):
            value = f"{value:.4g}"
        if value is not None and str(value):
            found[key] = shortened(printable(str(value)), _MAX_LENGTH)
    return found


def names(models: Sequence[str], most: int = 5) -> str:
    """The first few, and how many more."""
    told = ", ".join(f"`{shown(model)}`" for model in models[:most])
    more = len(models) - most
    return f"{told} and {more} more" if more > 0 else told
