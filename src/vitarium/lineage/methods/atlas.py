"""The greedy rule of the Model Atlas: each model is a child of one of its nearest earlier ones."""

import math
from collections.abc import Mapping

import numpy as np
from pydantic import Field, NonNegativeFloat, PositiveInt

from vitarium.core.config import Config
from vitarium.core.errors import InvalidInput, UnknownName
from vitarium.core.registry import lineage
from vitarium.lineage._canonical_order import by_name, copies, tied
from vitarium.lineage._ward import families
from vitarium.lineage.forest import Edge, Forest, Kind
from vitarium.lineage.methods._layer_distances import l2
from vitarium.lineage.methods.nearest_root import ahead
from vitarium.lineage.model_set import Heap

LEVELS = 256
"""A tensor with no more different values is of a quantised model: eight bits have as many."""
SAMPLE = 65_536
"""Numbers of a tensor that are looked at for it."""


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
@by_name
def atlas(config: Atlas, heap: Heap, trees: int | None) -> Forest:
    """Each model is attached to the nearest earlier one, or the oldest of these in a fan.

    Families are found by `families`; the earliest of each is its root. Quantised models and copies
    are leaves; a copy has the parent of the model it is of. The paper has no confidences; here an
    edge's is second / (first + second), of the distances to the two nearest earlier models, and a
    root's is 1 where times are known, and the same of the two smallest norms where not.

    Raises InvalidInput where times are not of all models, and UnknownName.
    """
    times, notes = _times(config, heap)
    distances = l2(heap)
    labels = families(heap, distances, trees)
    chart = _Chart(config, heap, distances, labels, times)
    roots = {
        heap.names[root]: 1.0 if config.times else ahead(times[labels == label])
        for label, root in enumerate(chart.roots)
    }
    return Forest("atlas", heap.names, labels.tolist(), chart.edges(), roots, tied(heap), notes)


def _times(config: Atlas, heap: Heap) -> tuple[np.ndarray, list[str]]:
    for name in config.times:
        if name not in heap.names:
            raise UnknownName("model", name, heap.names)
    missing = [name for name in heap.names if name not in config.times]
    if config.times and missing:
        raise InvalidInput(
            f"no time is given of {', '.join(missing[:5])}{' and others' * (len(missing) > 5)}: "
            "give the times of all models, or of none"
        )
    if config.times:
        return np.array([config.times[name] for name in heap.names], dtype=np.float64), []
    matrices = [name for name, shape in heap.shapes.items() if len(shape) > 1]
    norms = np.sqrt(heap.evidence.gram(matrices or None).diagonal())
    return norms, ["the norm of weights stands in for the time, which is not known"]


class _Chart:
    """Which earlier model each is attached to."""

    def __init__(
        self,
        config: Atlas,
        heap: Heap,
        distances: np.ndarray,
        labels: np.ndarray,
        times: np.ndarray,
    ) -> None:
        self.config, self.names = config, heap.names
        self.distances, self.labels, self.times = distances, labels, times
        order = np.lexsort((np.arange(len(heap)), times))  # of those as early by name
        earliest: dict[tuple[int, int], int] = {}
        groups = list(zip(copies(heap).tolist(), labels.tolist(), strict=True))
        for place in order.tolist():
            earliest.setdefault(groups[place], place)
        self.original = np.array([earliest[group] for group in groups])
        """Of a copy the model that it is of, of others themselves."""
        self.quantised = np.array([_is_quantised(heap, place) for place in range(len(heap))])
        self.leaf = self.quantised | (self.original != np.arange(len(heap)))
        self.roots = [
            self._root(order[labels[order] == label]) for label in range(labels.max() + 1)
        ]
        self.fans = self._fans()

    def edges(self) -> list[Edge]:
        found = []
        for place, original in enumerate(self.original.tolist()):
            root = self.roots[self.labels[place]]
            if place == root:
                continue
            if original == root:
                found.append(Edge(self.names[root], self.names[place], 1.0, kind="copy"))
            else:
                parent, confidence = self._parent(original)
                kind: Kind = "quantised" if self.quantised[place] else "trained"
                found.append(Edge(self.names[parent], self.names[place], confidence, kind=kind))
        return found

    def _root(self, members: np.ndarray) -> int:
        """The earliest of a family that is no leaf, of places sorted by time; or the earliest."""
        inner = members[~self.leaf[members]]
        return int(inner[0] if len(inner) else members[0])

    def _parent(self, place: int) -> tuple[int, float]:
        earlier = self._nearest(place, self.times < self.times[place])
        if not len(earlier):  # made as early as the root, or before it
            return self.roots[self.labels[place]], 0.5
        confidence = ahead(self.distances[place, earlier])
        if self.fans[place]:
            return int(earlier[self.times[earlier].argmin()]), confidence
        return int(earlier[0]), confidence

    def _nearest(self, place: int, among: np.ndarray) -> np.ndarray:
        """The K nearest models of its family that have children, the nearest first."""
        able = among & ~self.leaf & (self.labels == self.labels[place])
        able[place] = False
        places = np.flatnonzero(able)
        order = self.distances[place, places].argsort(kind="stable")
        return places[order[: self.config.neighbours]]

    def _fans(self) -> np.ndarray:
        """Which models are as far from all that are near, and not in line with time."""
        alike = np.zeros(len(self.names), dtype=bool)
        correlations = np.zeros(len(self.names))
        for place in range(len(self.names)):
            near = self._nearest(place, np.ones(len(self.names), dtype=bool))
            distances = self.distances[place, near]
            if len(near) > 1:
                alike[place] = (
                    distances.max() - distances.min() < self.config.spread * distances.max()
                )
                correlations[place] = _correlation(
                    distances, abs(self.times[near] - self.times[place])
                )
        return alike & (correlations <= np.percentile(correlations, self.config.snake))


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Pearson's; 0 where one of them is constant."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])


def _is_quantised(heap: Heap, place: int) -> bool:
    """Whether the largest tensor has few different values, of many."""
    name, shape = max(heap.shapes.items(), key=lambda item: math.prod(item[1]))
    if math.prod(shape) <= 4 * LEVELS:
        return False
    rows = min(shape[0], max(1, SAMPLE * shape[0] // math.prod(shape)))
    values = heap.models[place].rows(name, 0, rows).flatten()
    return len(values) > 4 * LEVELS and len(values.unique()) <= LEVELS
