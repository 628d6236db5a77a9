"""A recovered forest beside the truth: a row per model, and what is right of each edge."""

import math
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from vitarium.core.printable import printable, shortened
from vitarium.lineage.base import NO_PARENT, Edge, Forest, tree_numbers
from vitarium.lineage.files.forests import Info
from vitarium.lineage.ground_truth import Truth
from vitarium.lineage.recover import Recovered
from vitarium.lineage.scores import Scores
from vitarium.studies.report.trees import DASHED, Node, arrange

_ID = re.compile(r"[0-9a-f]{12,}(@\d+)?")
_MIN_LISTED, _MAX_CANDIDATES = 0.05, 3  # other parents that are listed beside the first
_MAX_NAME, _MAX_LENGTH = 34, 300  # characters of a name, and of the description of a model


class Status:
    """Of edges and models beside the truth."""

    RIGHT, TIED, WRONG = "right", "right but for a tie", "wrong"
    MISSED = DASHED
    UNKNOWN = "recovered"  # the truth is not known


def short_name(model: str) -> str:
    """A model's name as people read it: of a zoo's ids eight digits, of long names both ends."""
    if _ID.fullmatch(model):
        id, at, epoch = model.partition("@")
        return id[:8] + at + epoch
    return shortened(printable(model), _MAX_NAME)


def percent(probability: float) -> str:
    """Rounded, and 100 % of certainty alone."""
    return f"{100 if probability == 1 else min(100 * probability, 99):.0f} %"


def candidate_list(forest: Forest, model: str) -> str:
    """The other parents that a model may have, or that it is a root, with their probabilities."""
    recovered = set(forest.parents[model]) or {NO_PARENT}
    texts = [
        f"{'a root' if name == NO_PARENT else f'of {short_name(name)}'} {percent(probability)}"
        for name, probability in forest.candidates.get(model, {}).items()
        if name not in recovered and probability >= _MIN_LISTED
    ]
    return ", ".join(texts[:_MAX_CANDIDATES])


class Link(NamedTuple):
    """An edge of a forest, or a true one that it lacks."""

    parent: str
    child: str
    status: str
    edge: Edge | None = None  # None: a true edge that was missed


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
    scores: Scores | None = None

    @cached_property
    def rows(self) -> list[Node]:
        """The largest families first, siblings by description and by name.

        A model of several parents stands below the one with the largest share.
        """
        sizes = {family: len(tree) for family, tree in enumerate(self.forest.trees)}

        def order(model: str) -> tuple[int, int, str, str]:
            family = self.families[model]
            return -sizes[family], family, self.descriptions.get(model, ""), model

        parents = self.forest.parents
        main_parents: dict[str, str | None] = {}
        for model in sorted(self.forest.models, key=order):
            edges = sorted(parents[model].values(), key=lambda edge: (-edge.share, edge.parent))
            main_parents[model] = edges[0].parent if edges else None
        return arrange(main_parents)

    @cached_property
    def families(self) -> dict[str, int]:
        """By model, counted from 0 without gaps."""
        _, numbers = np.unique(np.asarray(self.forest.families), return_inverse=True)
        return dict(zip(self.forest.models, numbers.tolist(), strict=True))

    @cached_property
    def links(self) -> list[Link]:
        """Every edge of the forest, and then the true ones that it lacks."""
        parents = self.forest.parents
        missed = [
            Link(parent, child, Status.MISSED)
            for child, true in (self.truth or {}).items()
            for parent in true
            if child in parents and parent in parents and parent not in parents[child]
        ]
        return [*(Link(e.parent, e.child, self._status(e), e) for e in self.forest.edges), *missed]

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
        return [model for model, parents in self.forest.parents.items() if not parents]

    @cached_property
    def mixtures(self) -> list[str]:
        return [model for model, parents in self.forest.parents.items() if len(parents) > 1]

    def confidence(self, model: str) -> float:
        """`Forest.confidence`."""
        return self.forest.confidence(model)

    @cached_property
    def true_trees(self) -> list[set[str]]:
        """Models of each true tree of which all parents are known."""
        truth, models = self.truth or {}, self.forest.models
        edges = ((p, child) for child, parents in truth.items() for p in parents)
        trees: dict[int, set[str]] = defaultdict(set)
        for model, number in zip(models, tree_numbers(models, edges), strict=True):
            trees[number].add(model)
        return [tree for tree in trees.values() if tree <= truth.keys()]

    @cached_property
    def num_whole_trees(self) -> int:
        """True trees whose models are exactly those of a recovered one, but for models of which it
        is not known what tree they are of."""
        known = {model for tree in self.true_trees for model in tree}
        recovered = {frozenset(known.intersection(tree)) for tree in self.forest.trees}
        return sum(tree in recovered for tree in self.true_trees)

    def true_parents(self, model: str) -> tuple[str, ...] | None:
        """None where nobody knows."""
        return (self.truth or {}).get(model)

    def score(self, name: str) -> float | None:
        """None where there is nothing to count."""
        value = getattr(self.scores, name, None)
        return value if isinstance(value, int | float) and math.isfinite(value) else None

    @cached_property
    def _ties(self) -> dict[str, frozenset[str]]:
        """By model, all whose weights do not distinguish them from it."""
        names = {name for parents in (self.truth or {}).values() for name in parents}
        ties = {model: frozenset([model]) for model in names.union(self.forest.models)}
        for tied in self.forest.tied:
            ties |= dict.fromkeys(tied, frozenset(tied))
        return ties

    def _status(self, edge: Edge) -> str:
        true = self.true_parents(edge.child)
        if true is None:
            return Status.UNKNOWN
        if edge.parent in true:
            return Status.RIGHT
        twins = self._ties[edge.child]
        candidates = {name for twin in twins for name in self.true_parents(twin) or ()}
        return Status.TIED if candidates & self._ties[edge.parent] else Status.WRONG

    def _status_of_model(self, model: str) -> str:
        true, recovered = self.true_parents(model), set(self.forest.parents[model])
        if true is None:
            return Status.UNKNOWN
        if recovered == set(true):
            return Status.RIGHT
        groups = {self._ties[parent] for parent in recovered}
        truths = [names for names in map(self.true_parents, self._ties[model]) if names is not None]
        is_tied = any({self._ties[name] for name in names} == groups for names in truths)
        return Status.TIED if is_tied else Status.WRONG


Forests = Mapping[str, EvaluatedForest]
"""By method, that of the chosen one first."""


def evaluated_forests(recovered: Recovered) -> Forests:
    """Every method's forest beside the truth, that of the chosen method first."""
    texts = descriptions(recovered.info)
    forests = {recovered.forest.method: (recovered.forest, recovered.scores), **recovered.others}
    return {
        name: EvaluatedForest(forest, recovered.truth, texts, scores)
        for name, (forest, scores) in forests.items()
    }


def true_forest(recovered: Recovered, name: str) -> EvaluatedForest | None:
    """The truth as a forest, which is right and of no confidence."""
    truth, models = recovered.truth, recovered.forest.models
    if truth is None:
        return None
    edges = [
        Edge(parent, child, math.nan, share=1 / len(truth[child]))
        for child in models
        for parent in truth.get(child, ())
        if parent in recovered.forest.parents
    ]
    families = tree_numbers(models, ((edge.parent, edge.child) for edge in edges))
    forest = Forest(name, models, families, edges, {})
    return EvaluatedForest(forest, truth, descriptions(recovered.info))


def descriptions(info: Info) -> dict[str, str]:
    """Models in a few words beside their names: `finetune  lr=0.01`.

    A factor that all models of a stage have in common distinguishes none of them.
    """
    values: dict[tuple[Any, str], set[str]] = defaultdict(set)
    factors: dict[str, Mapping[str, Any]] = {}
    for model, entry in info.items():
        if isinstance(entry.get("factors"), Mapping):
            factors[model] = entry["factors"]
            for name, value in factors[model].items():
                values[entry.get("stage"), name].add(str(value))
    texts = {}
    for model, entry in info.items():
        if factors.get(model):
            stage, setting = entry.get("stage"), factors[model]
            varying = {name: v for name, v in setting.items() if len(values[stage, name]) > 1}
            entry = {**entry, "factors": varying}
        cells = about(entry)
        texts[model] = "  ".join(cells[key] for key in ("stage", "factors") if key in cells)
    return texts


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
