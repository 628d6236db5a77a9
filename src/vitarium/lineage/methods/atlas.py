"""The greedy rule of the Model Atlas: each model is a child of one of its nearest earlier ones."""

import math
from collections.abc import Mapping

import numpy as np
from pydantic import Field, NonNegativeFloat, PositiveInt

from vitarium.core.config import Config
from vitarium.core.errors import InvalidInput, UnknownName
from vitarium.lineage._clusters import families_by_distance
from vitarium.lineage.base import (
    Edge,
    Forest,
    Kind,
    ModelSet,
    canonical_order,
    copies,
    lineage,
    margin,
    tied,
)
from vitarium.lineage.methods._layer_distances import l2

MAX_QUANTIZED_VALUES = 256
"""A tensor with no more different values is of a quantized model: eight bits have as many."""
SAMPLE_SIZE = 65_536  # entries of a tensor that are looked at for it


class Atlas(Config):
    times: Mapping[str, float] = Field(default_factory=dict)
    """Time at which each model was made, in any unit, by its name, for all models or for none.
    Without times the l2 norm of a model's weight matrices stands in, as it mostly grows during
    training."""
    neighbors: PositiveInt = 5
    """Number K of nearest models that are considered."""
    spread: NonNegativeFloat = 0.05
    """Relative spread of the distances to the K nearest models, (largest - smallest) / largest,
    above which the nearest earlier model is the parent."""
    snake: float = Field(default=60, ge=0, le=100)
    """Percentile, over all models, of the correlation between distance and time difference; a model
    with similar distances and a correlation above it counts as a saved epoch of one run, whose
    parent is the nearest earlier model. Otherwise it is the oldest of the K nearest earlier
    models."""


@lineage(
    "atlas",
    paper="Horwitz et al. 2025, We Should Chart an Atlas of All the World's Models, "
    "arXiv 2503.10633",
)
@canonical_order
def atlas(config: Atlas, model_set: ModelSet, trees: int | None) -> Forest:
    """Model Atlas: a model's parent is the nearest earlier model, or in a fan the oldest neighbor.

    The earliest of each of `families_by_distance` is its root. Quantized models and copies are
    leaves; a copy has the parent of the model it is of. The paper has no confidences; here an
    edge's is second / (first + second), of the distances to the two nearest earlier models, and a
    root's is 1 where times are known, and the same of the two smallest norms where not.

    Raises InvalidInput where times are not of all models, and UnknownName.
    """
    names, (times, notes) = model_set.names, _times(config, model_set)
    distances = l2(model_set)
    labels = families_by_distance(model_set, distances, trees)
    order = np.lexsort((np.arange(len(names)), times))  # of those as early by name
    earliest: dict[tuple[int, int], int] = {}
    groups = list(zip(copies(model_set).tolist(), labels.tolist(), strict=True))
    for index in order.tolist():
        earliest.setdefault(groups[index], index)
    quantized = [_is_quantized(model_set, index) for index in range(len(names))]
    leaf = np.array(quantized) | ([earliest[group] for group in groups] != np.arange(len(names)))
    roots = []
    for label in range(labels.max() + 1):
        members = order[labels[order] == label]
        inner = members[~leaf[members]]  # the earliest that is no leaf; or the earliest
        roots.append(int(inner[0] if len(inner) else members[0]))
    able = ~leaf & (labels == labels[:, None]) & ~np.eye(len(names), dtype=bool)
    fans, edges = _fans(config, distances, able, times), []
    for index, group in enumerate(groups):
        root, original = roots[labels[index]], earliest[group]
        if index == root:
            continue
        kind: Kind = "quantized" if quantized[index] else "trained"
        is_earlier = able[original] & (times < times[original])
        earlier = _nearest(config, distances[original], is_earlier)
        if original == root:
            parent, confidence, kind = root, 1.0, "copy"
        elif not len(earlier):  # made as early as the root, or before it
            parent, confidence = root, 0.5
        else:
            parent = earlier[times[earlier].argmin() if fans[original] else 0]
            confidence = margin(distances[original, earlier])
        edges.append(Edge(names[parent], names[index], confidence, kind=kind))
    confidences = {
        names[root]: 1.0 if config.times else margin(times[labels == label])
        for label, root in enumerate(roots)
    }
    return Forest("atlas", names, labels.tolist(), edges, confidences, tied(model_set), notes)


def _times(config: Atlas, model_set: ModelSet) -> tuple[np.ndarray, list[str]]:
    """Times of all models, or what stands in for them, float64 [K], and notes."""
    for name in config.times:
        if name not in model_set.names:
            raise UnknownName("model", name, model_set.names)
    if config.times:
        missing = [name for name in model_set.names if name not in config.times]
        if missing:
            which = f"{', '.join(missing[:5])}{' and others' * (len(missing) > 5)}"
            hint = "give the times of all models, or of none"
            raise InvalidInput(f"no time is given of {which}: {hint}")
        return np.array([config.times[name] for name in model_set.names], dtype=np.float64), []
    norms = np.sqrt(model_set.statistics.gram(model_set.matrices or None).diagonal())
    return norms, ["the norm of weights stands in for the time, which is not known"]


def _nearest(config: Atlas, distances: np.ndarray, able: np.ndarray) -> np.ndarray:
    """The K nearest of the models that are `able` [n], by distances [n], nearest first."""
    indices = np.flatnonzero(able)
    return indices[distances[indices].argsort(kind="stable")[: config.neighbors]]


def _fans(config: Atlas, distances: np.ndarray, able: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Which models are equally far from all neighbors, and not in line with time: bool [n], from
    distances [n, n], who can be whose parent [n, n], and times [n]."""
    equidistant, correlations = np.zeros(len(times), dtype=bool), np.zeros(len(times))
    for index in range(len(times)):
        near = _nearest(config, distances[index], able[index])
        lengths, gaps = distances[index, near], abs(times[near] - times[index])
        if len(near) > 1:
            spread = lengths.max() - lengths.min()
            equidistant[index] = spread < config.spread * lengths.max()
            if np.ptp(lengths) > 0 and np.ptp(gaps) > 0:  # 0 where one is constant
                correlations[index] = np.corrcoef(lengths, gaps)[0, 1]
    return equidistant & (correlations <= np.percentile(correlations, config.snake))


def _is_quantized(model_set: ModelSet, index: int) -> bool:
    """Whether the largest tensor has few different values, of many."""
    name, shape = max(model_set.shapes.items(), key=lambda item: math.prod(item[1]))
    if math.prod(shape) <= 4 * MAX_QUANTIZED_VALUES:
        return False
    rows = min(shape[0], max(1, SAMPLE_SIZE * shape[0] // math.prod(shape)))
    values = model_set.models[index].rows(name, 0, rows).flatten()
    return len(values) > 4 * MAX_QUANTIZED_VALUES and len(values.unique()) <= MAX_QUANTIZED_VALUES
