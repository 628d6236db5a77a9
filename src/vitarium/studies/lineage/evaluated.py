"""A recovered forest beside the truth: a row per model, and what is right of each edge."""

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from scipy.cluster.hierarchy import DisjointSet

from vitarium.core.printable import printable, shortened
from vitarium.lineage.base import Edge, Forest
from vitarium.lineage.recover import Recovered
from vitarium.studies.report.trees import DASHED, Node, arrange

Truth = Mapping[str, tuple[str, ...]]
"""True parents of each model of which they are known."""
RIGHT, TIED, WRONG = "right", "right but for a tie", "wrong"
MISSED = DASHED
UNKNOWN = "recovered"
"""Of an edge of which the truth is not known."""
DOUBTFUL = 0.9
"""An edge of a lower confidence is pointed out."""
_ID = re.compile(r"[0-9a-f]{12,}(@\d+)?")
_MAX_NAME, _MAX_LENGTH = 34, 300
"""Characters of a name, and of the description of a model."""


def short_name(model: str) -> str:
    """A model's name as people read it: of a zoo's ids eight digits, of long names both ends."""
    if _ID.fullmatch(model):
        id, at, epoch = model.partition("@")
        return id[:8] + at + epoch
    plain = printable(model)
    if len(plain) <= _MAX_NAME:
        return plain
    return f"{plain[: _MAX_NAME // 3]}…{plain[-(2 * _MAX_NAME) // 3 + 1 :]}"


@dataclass(frozen=True)
class Link:
    """An edge of a forest, or a true one that it lacks."""

    parent: str
    child: str
    status: str
    edge: Edge | None = None
    """None: a true edge that was missed."""


@dataclass(frozen=True)
class EvaluatedForest:
    """A forest beside the truth.

    Args:
        forest: no circle among its edges.
        truth: true parents; None where nothing is known, and a model may be missing in it.
        descriptions: by model, beside its name; for the order of rows.
    """

    forest: Forest
    truth: Truth | None
    descriptions: Mapping[str, str]

    @cached_property
    def rows(self) -> list[Node]:
        """The largest families first, siblings by description and by name.

        A model of several parents stands below the one with the largest share.
        """
        sizes = {family: len(tree) for family, tree in enumerate(self.forest.trees)}
        order = sorted(
            self.forest.models,
            key=lambda m: (
                -sizes[self.families[m]],
                self.families[m],
                self.descriptions.get(m, ""),
                m,
            ),
        )
        parents = self.forest.parents
        return arrange({model: _main_parent(parents[model]) for model in order})

    @cached_property
    def families(self) -> dict[str, int]:
        """By model, counted from 0 without gaps."""
        numbers = {number: rank for rank, number in enumerate(sorted(set(self.forest.families)))}
        models = zip(self.forest.models, self.forest.families, strict=True)
        return {model: numbers[number] for model, number in models}

    @cached_property
    def links(self) -> list[Link]:
        """Every edge of the forest, and then the true ones that it lacks."""
        links = [
            Link(edge.parent, edge.child, self._status(edge), edge) for edge in self.forest.edges
        ]
        return [*links, *self._missed()]

    @cached_property
    def edges(self) -> list[tuple[Edge, str]]:
        """With whether they are right."""
        return [(link.edge, link.status) for link in self.links if link.edge]

    @cached_property
    def statuses(self) -> dict[str, str]:
        """Of models: right where all parents are the true ones, and none is missing."""
        return {model: self._status_of_model(model) for model in self.forest.models}

    @cached_property
    def roots(self) -> list[str]:
        """Models without parents."""
        return [model for model, parents in self.forest.parents.items() if not parents]

    @cached_property
    def mixtures(self) -> list[str]:
        """Models of several parents."""
        return [model for model, parents in self.forest.parents.items() if len(parents) > 1]

    def confidence(self, model: str) -> float:
        """The lowest of its edges', or of a root that it is one; NaN where there is none."""
        edges = self.forest.parents[model].values()
        root = self.forest.roots.get(model, math.nan)
        return min((edge.confidence for edge in edges), default=root)

    def true_parents(self, model: str) -> tuple[str, ...] | None:
        """None where nobody knows."""
        return None if self.truth is None else self.truth.get(model)

    @cached_property
    def _ties(self) -> dict[str, frozenset[str]]:
        """By model, all whose weights do not distinguish them from it."""
        ties = {model: frozenset([model]) for model in self.forest.models}
        for tied in self.forest.tied:
            ties |= dict.fromkeys(tied, frozenset(tied))
        return ties

    def _tied_with(self, model: str) -> frozenset[str]:
        return self._ties.get(model, frozenset([model]))

    def _status(self, edge: Edge) -> str:
        true = self.true_parents(edge.child)
        if self.truth is None or true is None:
            return UNKNOWN
        if edge.parent in true:
            return RIGHT
        candidates = self._tied_with(edge.parent)
        parents = (self.truth.get(child, ()) for child in self._tied_with(edge.child))
        return TIED if any(candidates & set(names) for names in parents) else WRONG

    def _status_of_model(self, model: str) -> str:
        true = self.true_parents(model)
        if self.truth is None or true is None:
            return UNKNOWN
        recovered = set(self.forest.parents[model])
        if recovered == set(true):
            return RIGHT
        groups = {self._tied_with(parent) for parent in recovered}
        for twin in self._tied_with(model):
            parents = self.truth.get(twin)
            if parents is not None and {self._tied_with(p) for p in parents} == groups:
                return TIED
        return WRONG

    def _missed(self) -> Iterator[Link]:
        for child, parents in (self.truth or {}).items():
            if child not in self.forest.parents:
                continue
            for parent in parents:
                if parent in self.forest.parents and parent not in self.forest.parents[child]:
                    yield Link(parent, child, MISSED)


def _main_parent(edges: Mapping[str, Edge]) -> str | None:
    edge = min(edges.values(), key=lambda edge: (-edge.share, edge.parent), default=None)
    return edge.parent if edge else None


def evaluated_forests(recovered: Recovered) -> dict[str, EvaluatedForest]:
    """Every method's forest beside the truth, that of the chosen method first."""
    texts = descriptions(recovered.info)
    forests = {recovered.forest.method: recovered.forest}
    forests |= {name: forest for name, (forest, _) in recovered.others.items()}
    return {
        name: EvaluatedForest(forest, recovered.truth, texts) for name, forest in forests.items()
    }


def true_forest(recovered: Recovered, name: str) -> EvaluatedForest | None:
    """The truth as a forest, which is right and of no confidence."""
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
    trees = DisjointSet(models)
    for edge in edges:
        trees.merge(edge.parent, edge.child)
    numbers: dict[str, int] = {}
    families = [numbers.setdefault(trees[model], len(numbers)) for model in models]
    forest = Forest(name, models, families, edges, {})
    return EvaluatedForest(forest, truth, descriptions(recovered.info))


def descriptions(info: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Models in a few words beside their names: `finetune  lr=0.01`.

    A factor that all models of a stage have in common distinguishes none of them.
    """
    values: dict[tuple[Any, str], set[str]] = defaultdict(set)
    for entry in info.values():
        for name, value in _factors(entry).items():
            values[entry.get("stage"), name].add(str(value))
    texts = {}
    for model, entry in info.items():
        varying = {
            name: value
            for name, value in _factors(entry).items()
            if len(values[entry.get("stage"), name]) > 1
        }
        cells = about({**entry, "factors": varying or None} if _factors(entry) else entry)
        texts[model] = "  ".join(cells[key] for key in ("stage", "factors") if key in cells)
    return texts


def _factors(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    factors = entry.get("factors")
    return factors if isinstance(factors, Mapping) else {}


def about(entry: Mapping[str, Any]) -> dict[str, str]:
    """What is known of a model, in short texts."""
    texts = {}
    for key in ("stage", "factors", "epoch", "accuracy", "file"):
        value = entry.get(key)
        if isinstance(value, Mapping):
            value = " ".join(f"{name}={setting}" for name, setting in value.items())
        if isinstance(value, float):
            value = f"{value:.4g}"
        if value is not None and str(value):
            texts[key] = shortened(printable(str(value)), _MAX_LENGTH)
    return texts


def name_list(models: Sequence[str], count: int = 5) -> str:
    """The first few, and how many more."""
    names = ", ".join(f"`{short_name(model)}`" for model in models[:count])
    more = len(models) - count
    return f"{names} and {more} more" if more > 0 else names
