"""The contract of methods of lineage recovery."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, wraps
from typing import Any, Literal, TypeVar

import numpy as np

from vitarium.core.progress import SILENT, Progress
from vitarium.core.registry import contract, register
from vitarium.evaluation.inputs import Weights
from vitarium.lineage._relatedness import cosines
from vitarium.lineage._statistics import WeightStatistics, read_statistics

Kind = Literal["trained", "copy", "merged", "quantized", "pruned", "low_rank", "permuted"]
"""What became of the parent: it was trained further, fully or by a difference of low rank (LoRA);
copied, merged with others, stored with fewer values, set to zero in part; or its units were
permuted."""


DECIDED = 0.9
"""Probability from which on an edge or a root is stated; below it, people read "cannot tell"."""
NO_PARENT = ""  # stands for a root, or a parent that is not here, among candidates


@dataclass(frozen=True)
class Edge:
    parent: str
    child: str
    confidence: float  # probability in [0, 1] that the edge is right, as the method sees it
    share: float = 1.0
    """Of the child that is this parent's: less than 1 where it is a mixture of several."""
    kind: Kind = "trained"
    change: str = ""
    """What training changed (`lineage.changes`), which `recover` fills in: "low rank (r <= 8 in q,
    v of all blocks)"."""


@dataclass(frozen=True)
class Forest:
    """Recovered lineage of a set of models: trees, in which a merged model has several parents."""

    method: str
    models: Sequence[str]  # in the model set's order
    families: Sequence[int]
    """For every model the number of its tree, from 0, in order of appearance."""
    edges: Sequence[Edge]  # no circle among them; a model without an edge to it is a root
    roots: Mapping[str, float]  # by name, the probability that a root is one, in [0, 1]
    tied: Sequence[Sequence[str]] = ()
    """Groups of models with equal weights; each could stand in the other's place."""
    notes: Sequence[str] = ()  # what a user should know, as sentences
    candidates: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """By model, the probability of each parent that it may have, the most probable first;
    NO_PARENT: none of these models. A method may leave models out."""

    @cached_property
    def undecided(self) -> list[str]:
        """Models whose edges, or whose place as a root, have a probability below DECIDED."""
        return [model for model in self.models if self.confidence(model) < DECIDED]

    def confidence(self, model: str) -> float:
        """The lowest of its edges', or of a root that it is one; NaN where there is none."""
        edges = self.parents[model].values()
        return min((edge.confidence for edge in edges), default=self.roots.get(model, math.nan))

    @cached_property
    def parents(self) -> dict[str, dict[str, Edge]]:
        """By child, then by parent, the edge between them; a root has none."""
        parents: dict[str, dict[str, Edge]] = {model: {} for model in self.models}
        for edge in self.edges:
            parents[edge.child][edge.parent] = edge
        return parents

    @cached_property
    def trees(self) -> list[list[str]]:
        """Names of the models of each family, by its number."""
        members = defaultdict(list)
        for model, family in zip(self.models, self.families, strict=True):
            members[family].append(model)
        return [members[family] for family in sorted(members)]


@dataclass(frozen=True)
class ModelSet:
    """K models with the same tensors, heads left out."""

    models: Sequence[Weights]  # their names are unique
    tensors: Sequence[str]  # those that all models have in one shape; heads are not among them
    progress: Progress = SILENT

    def __len__(self) -> int:
        return len(self.models)

    @cached_property
    def names(self) -> list[str]:
        return [model.name for model in self.models]

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {name: self.models[0].shapes[name] for name in self.tensors}

    @cached_property
    def matrices(self) -> list[str]:
        """Tensors of two dimensions or more."""
        return [name for name, shape in self.shapes.items() if len(shape) > 1]

    @cached_property
    def weight_layers(self) -> list[str]:
        """Matrices and convolutions, which begin at random; all tensors where there are none."""
        shapes = self.shapes
        return [n for n in shapes if len(shapes[n]) in (2, 4) and shapes[n][0] > 1] or list(shapes)

    @cached_property
    def statistics(self) -> WeightStatistics:
        """Inner products [K, K] and moments [K] by tensor; every file is read once for them."""
        return read_statistics(self.models, self.tensors, self.progress)

    @cached_property
    def cosines(self) -> tuple[np.ndarray, np.ndarray]:
        """Cosines of the models' `weight_layers`, and their standard errors, float64 [K, K]."""
        layers = self.weight_layers
        numbers = sum(int(np.prod(self.shapes[name])) for name in layers)
        return cosines(np.stack([self.statistics.grams[name] for name in layers]), numbers)

    @property
    def has_statistics(self) -> bool:
        return "statistics" in self.__dict__

    def subset(self, indices: Sequence[int] | np.ndarray) -> "ModelSet":
        """The models at these indices [n], with their part of the statistics, if there are any."""
        selected = replace(self, models=[self.models[index] for index in indices])
        if self.has_statistics:
            selected.__dict__["statistics"] = self.statistics.subset(np.asarray(indices))
        return selected


RUNNER_OPTIONS: tuple[str, ...] = ("source", "method", "trees", "compare", "truth", "models")
RUNNER_OPTIONS += ("where", "epochs", "progress")
"""Of `vitarium.recover`: no setting of a method is called like one of them."""
Settings = TypeVar("Settings")
Method = Callable[[Settings, ModelSet, int | None], Forest]
AnyMethod = TypeVar("AnyMethod", bound=Callable[[Any, ModelSet, int | None], Forest])


@contract
def lineage(
    name: str, *, paper: str | None = None, tiny: Mapping[str, Any] = {}
) -> Callable[[AnyMethod], AnyMethod]:
    """Register a method of lineage recovery, a function `(config, model_set, trees) -> Forest`.

        @lineage("mother", paper="Horwitz et al. 2025, arXiv 2405.18432")
        def mother(config: MoTHer, model_set: ModelSet, trees: int | None) -> Forest: ...

    It is given K models with the same tensors (heads left out), their inner products and moments,
    and nothing else: names and the order of models mean nothing to it (`canonical_order` sorts
    them). `trees` is how many trees there are, None where that is not known.

    The forest has every model in the order given, in exactly one tree; trees are numbered from 0
    in order of appearance. Edges close no circle and stay within a tree; the shares of a model's
    parents add up to 1, and a model without a parent is in `roots`. Confidences are in [0, 1].
    Models with equal weights are in `tied`. It has as many trees as are asked for, and raises
    InvalidInput that says the number where that cannot be.

    A setting `roots` (names of models) is set to the true roots where the method is run for
    comparison and these are known (`recover`).

    `vitarium.testing.check_lineage(name)` checks all of this.

    Args:
        paper: authors, year, title or arXiv id; None: it is from no paper.
        tiny: settings for the contract tests, where the defaults do not fit a dozen small models.
    """
    facts: dict[str, Any] = {"tiny": dict(tiny)} | ({} if paper is None else {"paper": paper})
    return register("lineage", name, reserved=RUNNER_OPTIONS, **facts)


def canonical_order(method: Method[Settings]) -> Method[Settings]:
    """Decorate a method: it gets the models sorted by name; its forest is in the order given. So
    their order means nothing; where weights leave a choice open, the first name is chosen."""

    @wraps(method)
    def ordered(config: Settings, model_set: ModelSet, trees: int | None) -> Forest:
        order = sorted(range(len(model_set)), key=model_set.names.__getitem__)
        _ = model_set.statistics  # read here, so that the subset and the next method share it
        forest = method(config, model_set.subset(order), trees)
        tree_of = dict(zip(forest.models, forest.families, strict=True))
        families = first_appearance(np.array([tree_of[name] for name in model_set.names]))
        return replace(forest, models=model_set.names, families=families.tolist())

    return ordered


def first_appearance(labels: np.ndarray) -> np.ndarray:
    """Labels [K] renumbered from 0 as they appear, int64 [K]."""
    numbers = {label: number for number, label in enumerate(dict.fromkeys(labels.tolist()))}
    return np.array([numbers[label] for label in labels.tolist()], dtype=np.int64)


def tree_numbers(names: Sequence[str], edges: Iterable[tuple[str, str]]) -> list[int]:
    """Of every model its component of the graph of edges, from 0, as they appear."""
    import networkx

    graph = networkx.Graph()
    graph.add_nodes_from(names)
    graph.add_edges_from(edges)
    trees = enumerate(networkx.connected_components(graph))
    tree_of = {name: number for number, tree in trees for name in tree}
    return [tree_of[name] for name in names]


def copies(model_set: ModelSet) -> np.ndarray:
    """Index of the first model with the same weights, int64 [K]; its own, where none has."""
    return (model_set.statistics.squared_distances() == 0).argmax(1)


def tied(model_set: ModelSet) -> list[list[str]]:
    """Names of models with the same weights, in groups of two or more."""
    first = copies(model_set)
    groups = [np.flatnonzero(first == index) for index in np.unique(first)]
    return [[model_set.names[index] for index in group] for group in groups if len(group) > 1]


def margin(distances: np.ndarray) -> float:
    """Second smallest of distances [n] by the sum of the two smallest: from 1/2, a tie, to 1."""
    if len(distances) < 2:
        return 1.0
    first, second = np.partition(distances, 1)[:2]
    return float(second / (first + second)) if second > 0 else 0.5
