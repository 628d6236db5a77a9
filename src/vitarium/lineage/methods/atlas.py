"""The greedy rule of the Model Atlas: each model is a child of one of its nearest earlier ones."""

import math
from collections.abc import Mapping

import numpy as np
from pydantic import Field, NonNegativeFloat, PositiveInt

from vitarium.core.config import Config
from vitarium.core.errors import InvalidInput, UnknownName
from vitarium.lineage._canonical_order import canonical_order, copies, tied
from vitarium.lineage._clusters import families_by_distance
from vitarium.lineage.base import lineage
from vitarium.lineage.forest import Edge, Forest, Kind
from vitarium.lineage.methods._layer_distances import l2
from vitarium.lineage.methods.nearest_root import margin
from vitarium.lineage.model_set import ModelSet

MAX_QUANTIZED_VALUES = 256
"""A tensor with no more different values is of a quantized model: eight bits have as many."""
SAMPLE_SIZE = 65_536
"""Entries of a tensor that are looked at for it."""


class Atlas(Config):
    times: Mapping[str, float] = Field(default_factory=dict)
    """When each model was made, in any unit, by its name: of all models or of none. Without: the l2
    norm of a model's weight matrices stands in, since training mostly lets it grow."""
    neighbours: PositiveInt = 5
    """K: how many nearest models are looked at."""
    spread: NonNegativeFloat = 0.05
    """From this spread of the distances to the K nearest on, the nearest earlier model is the
    parent: (largest - smallest) / largest."""
    snake: float = Field(default=60, ge=0, le=100)
    """Where distances are alike: the percentile over all models of the correlation of distance
    and difference in time, above which a model is of one run's saved epochs. Its parent is the
    nearest earlier model, and otherwise the oldest of the K nearest earlier ones."""


@lineage(
    "atlas",
    config=Atlas,
    paper="Horwitz et al. 2025, We Should Chart an Atlas of All the World's Models, "
    "arXiv 2503.10633",
)
@canonical_order
def atlas(config: Atlas, model_set: ModelSet, trees: int | None) -> Forest:
    """Each model is attached to the nearest earlier one, or the oldest of these in a fan.

    Families are found by `families_by_distance`; the earliest of each is its root. Quantized
    models and copies are leaves; a copy has the parent of the model it is of. The paper has no
    confidences; here an edge's is second / (first + second), of the distances to the two nearest
    earlier models, and a root's is 1 where times are known, and the same of the two smallest norms
    where not.

    Raises InvalidInput where times are not of all models, and UnknownName.
    """
    times, notes = _times(config, model_set)
    distances = l2(model_set)
    labels = families_by_distance(model_set, distances, trees)
    chart = _Chart(config, model_set, distances, labels, times)
    roots = {
        model_set.names[root]: 1.0 if config.times else margin(times[labels == label])
        for label, root in enumerate(chart.roots)
    }
    return Forest(
        "atlas", model_set.names, labels.tolist(), chart.edges(), roots, tied(model_set), notes
    )


def _times(config: Atlas, model_set: ModelSet) -> tuple[np.ndarray, list[str]]:
    """Times of all models, or what stands in for them, float64 [K], and notes."""
    for name in config.times:
        if name not in model_set.names:
            raise UnknownName("model", name, model_set.names)
    missing = [name for name in model_set.names if name not in config.times]
    if config.times and missing:
        raise InvalidInput(
            f"no time is given of {', '.join(missing[:5])}{' and others' * (len(missing) > 5)}: "
            "give the times of all models, or of none"
        )
    if config.times:
        return np.array([config.times[name] for name in model_set.names], dtype=np.float64), []
    norms = np.sqrt(model_set.statistics.gram(model_set.matrices or None).diagonal())
    return norms, ["the norm of weights stands in for the time, which is not known"]


class _Chart:
    """Which earlier model each is attached to."""

    def __init__(
        self,
        config: Atlas,
        model_set: ModelSet,
        distances: np.ndarray,
        labels: np.ndarray,
        times: np.ndarray,
    ) -> None:
        self.config, self.names = config, model_set.names
        self.distances, self.labels, self.times = distances, labels, times
        order = np.lexsort((np.arange(len(model_set)), times))  # of those as early by name
        earliest: dict[tuple[int, int], int] = {}
        groups = list(zip(copies(model_set).tolist(), labels.tolist(), strict=True))
        for index in order.tolist():
            earliest.setdefault(groups[index], index)
        self.original = np.array([earliest[group] for group in groups])
        """Index of the earliest model with the same weights, int [K]; their own of others."""
        self.quantized = np.array(
            [_is_quantized(model_set, index) for index in range(len(model_set))]
        )
        self.leaf = self.quantized | (self.original != np.arange(len(model_set)))
        self.roots = [
            self._root(order[labels[order] == label]) for label in range(labels.max() + 1)
        ]
        self.fans = self._fans()

    def edges(self) -> list[Edge]:
        edges = []
        for index, original in enumerate(self.original.tolist()):
            root = self.roots[self.labels[index]]
            if index == root:
                continue
            if original == root:
                edges.append(Edge(self.names[root], self.names[index], 1.0, kind="copy"))
            else:
                parent, confidence = self._parent(original)
                kind: Kind = "quantised" if self.quantized[index] else "trained"
                edges.append(Edge(self.names[parent], self.names[index], confidence, kind=kind))
        return edges

    def _root(self, members: np.ndarray) -> int:
        """The earliest of a family (indices [n], by time) that is no leaf; or the earliest."""
        inner = members[~self.leaf[members]]
        return int(inner[0] if len(inner) else members[0])

    def _parent(self, index: int) -> tuple[int, float]:
        earlier = self._nearest(index, self.times < self.times[index])
        if not len(earlier):  # made as early as the root, or before it
            return self.roots[self.labels[index]], 0.5
        confidence = margin(self.distances[index, earlier])
        if self.fans[index]:
            return int(earlier[self.times[earlier].argmin()]), confidence
        return int(earlier[0]), confidence

    def _nearest(self, index: int, among: np.ndarray) -> np.ndarray:
        """The nearest models `among` [K] of its family that can have children, nearest first."""
        able = among & ~self.leaf & (self.labels == self.labels[index])
        able[index] = False
        indices = np.flatnonzero(able)
        order = self.distances[index, indices].argsort(kind="stable")
        return indices[order[: self.config.neighbours]]

    def _fans(self) -> np.ndarray:
        """Which models are equally far from all neighbors, and not in line with time; bool [K]."""
        equidistant = np.zeros(len(self.names), dtype=bool)
        correlations = np.zeros(len(self.names))
        for index in range(len(self.names)):
            near = self._nearest(index, np.ones(len(self.names), dtype=bool))
            distances = self.distances[index, near]
            if len(near) > 1:
                equidistant[index] = (
                    distances.max() - distances.min() < self.config.spread * distances.max()
                )
                correlations[index] = _correlation(
                    distances, abs(self.times[near] - self.times[index])
                )
        return equidistant & (correlations <= np.percentile(correlations, self.config.snake))


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson correlation of two vectors [n]; 0 where one of them is constant."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    return float(np.corrcoef(x, y)[0, 1])


def _is_quantized(model_set: ModelSet, index: int) -> bool:
    """Whether the largest tensor has few different values, of many."""
    name, shape = max(model_set.shapes.items(), key=lambda item: math.prod(item[1]))
    if math.prod(shape) <= 4 * MAX_QUANTIZED_VALUES:
        return False
    rows = min(shape[0], max(1, SAMPLE_SIZE * shape[0] // math.prod(shape)))
    values = model_set.models[index].rows(name, 0, rows).flatten()
    return len(values) > 4 * MAX_QUANTIZED_VALUES and len(values.unique()) <= MAX_QUANTIZED_VALUES
