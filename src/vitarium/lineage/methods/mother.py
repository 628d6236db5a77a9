"""MoTHer: distances, and the direction of time from the kurtosis of weights (Horwitz et al. 2025).
Beyond the paper, the direction's sign can be estimated, and edges have probabilities."""

from typing import Literal

import numpy as np
from pydantic import NonNegativeFloat, PositiveFloat

from vitarium.core.config import Config
from vitarium.core.errors import InvalidInput
from vitarium.lineage._clusters import families_by_distance
from vitarium.lineage.base import Edge, Forest, Kind, ModelSet, canonical_order, lineage, tied
from vitarium.lineage.methods import _layer_distances as layer_distances
from vitarium.lineage.methods._arborescence import NO_PARENT, minimum_arborescence, probabilities

TEMPERATURE = 0.1
"""Of the mean distance: a third of the penalty, so that an edge against the direction is e^3 times
less probable. MoTHer has no probabilities; this is ours."""

_OUTPUT_PROJECTIONS = tuple(
    f"{name}.weight" for name in ("attn.proj", "attention.output.dense", "out_proj", "o_proj")
)
"""The output projection of attention: timm's, Hugging Face's, torchvision's and Llama's."""


class MoTHer(Config):
    distance: Literal["l2", "mean_absolute", "largest", "rank"] = "l2"
    """Distance of two models' weights. l2: the mean over tensors of the l2 distance. The others use
    square matrices, with query, key and value apart: mean_absolute, the sum of mean absolute
    differences; largest, the largest difference of an entry, normalized per layer over all pairs of
    a family (families themselves are then found by mean_absolute); rank, the sum of the ranks of
    the differences, for LoRA."""
    direction: Literal["specialization", "generalization", "estimate"] = "estimate"
    """Whether kurtosis falls from parent to child, as in fine-tuning (specialization), or grows, as
    in further general training (generalization); estimate: whichever fits the distances better."""
    penalty: NonNegativeFloat = 0.3
    """Penalty added to the distance if an edge contradicts the direction, in units of the mean
    distance."""
    layers: Literal["attention_output", "square", "matrices"] = "attention_output"
    """Matrices whose kurtosis is summed: square output projections of attention, all square
    matrices, or all matrices; if there are none, the next of these."""
    tolerance: PositiveFloat | None = None
    """With distance rank: singular values up to this share of the largest count as 0; none: the
    rounding error."""


@lineage(
    "mother",
    paper="Horwitz et al. 2025, Unsupervised Model Tree Heritage Recovery, arXiv 2405.18432",
)
@canonical_order
def mother(config: MoTHer, model_set: ModelSet, trees: int | None) -> Forest:
    """MoTHer: minimum arborescence of weight distances, directed by the weights' kurtosis.

    Confidences are probabilities of trees drawn by exp(-cost / (0.1 mean distance)), see
    `_arborescence.probabilities`: how clear it is by its own costs, not how often it is right.

    Raises InvalidInput where there are more trees than models, or no weight matrix.
    """
    match config.distance:
        case "l2":
            distances = layer_distances.l2(model_set)
        case "rank":
            distances = layer_distances.rank(model_set, config.tolerance)
        case _:
            distances = layer_distances.mean_absolute(model_set)
    labels = families_by_distance(model_set, distances, trees)
    members = [np.flatnonzero(labels == label) for label in range(labels.max() + 1)]
    if config.distance == "largest":
        subsets = [model_set.subset(indices) for indices in members]
        within = [layer_distances.largest(subset) for subset in subsets]
    else:
        within = [distances[np.ix_(indices, indices)] for indices in members]
    summed, notes = _kurtosis(config, model_set)
    kurtosis = [summed[indices] for indices in members]
    falls = config.direction == "specialization"
    if config.direction == "estimate":
        squared = model_set.statistics.squared_distances()
        near = [squared[np.ix_(indices, indices)] for indices in members]
        falls = _kurtosis_falls(config, within, kurtosis, near)
        notes.append(
            f"kurtosis is taken to {'fall' if falls else 'grow'} from parent to child, as fits the "
            "distances; set the direction where the stage of training is known"
        )
    edges, roots = [], {}
    for indices, family_distances, values in zip(members, within, kurtosis, strict=True):
        names = [model_set.names[index] for index in indices]
        costs = _costs(config, family_distances, values, falls)
        tree = minimum_arborescence(costs)
        scale = TEMPERATURE * _mean_distance(family_distances)
        of_edges, of_roots = probabilities(costs, tree, scale or 1.0)
        roots[names[tree.root]] = float(of_roots[tree.root])
        for child, parent in enumerate(tree.parents):
            if parent != NO_PARENT:
                kind: Kind = "trained" if family_distances[parent, child] > 0 else "copy"
                edges.append(Edge(names[parent], names[child], float(of_edges[child]), kind=kind))
    return Forest("mother", model_set.names, labels.tolist(), edges, roots, tied(model_set), notes)


def _kurtosis(config: MoTHer, model_set: ModelSet) -> tuple[np.ndarray, list[str]]:
    """Sum of the excess kurtosis over layers, float64 [K], and a note where it is of others. Layers
    of which a model's is not defined (constant ones) are left out. Raises InvalidInput."""
    matrices = [name for name, shape in model_set.shapes.items() if len(shape) == 2]
    square = [name for name in matrices if len(set(model_set.shapes[name])) == 1]
    outputs = [name for name in square if name.endswith(_OUTPUT_PROJECTIONS)]
    layers_of_kind = {"attention_output": outputs, "square": square, "matrices": matrices}
    kinds = list(layers_of_kind)
    able = [kind for kind in kinds[kinds.index(config.layers) :] if layers_of_kind[kind]]
    if not able:
        what = "the models have no weight matrix in common, whose kurtosis tells parent from child"
        raise InvalidInput(f"{what}; choose another method")
    notes = []
    if able[0] != config.layers:
        notes.append(f"the models have no layers of the kind {config.layers}: {able[0]} stand in")
    kurtosis = model_set.statistics.moments["kurtosis"]
    values = np.array([kurtosis[name] for name in layers_of_kind[able[0]]])
    return values[np.isfinite(values).all(1)].sum(0), notes


def _costs(config: MoTHer, distances: np.ndarray, kurtosis: np.ndarray, falls: bool) -> np.ndarray:
    """Distances with the penalty, at i, j of the edge from i to j; float64 [n, n]."""
    grows = kurtosis[:, None] < kurtosis
    against = grows if falls else grows.T
    return distances + config.penalty * _mean_distance(distances) * against


def _mean_distance(distances: np.ndarray) -> float:
    """Mean over pairs of different models, of distances [n, n]."""
    count = len(distances)
    return float(distances.sum() / max(1, count * (count - 1)))


def _kurtosis_falls(
    config: MoTHer, within: list[np.ndarray], kurtosis: list[np.ndarray], squared: list[np.ndarray]
) -> bool:
    """Whether kurtosis falls from parent to child, estimated by family of n models from distances
    [n, n], kurtosis [n] and squared l2 distances [n, n]. A family's medoid, from which the squared
    distances to all others are least, is near its root (unless the family is a chain): kurtosis
    falls where that of medoids is above the median of their families, on average over families.
    Where that is undecided, the sign whose trees cost less; and falls, where they cost the same."""
    ranks = []  # of a medoid's kurtosis in its family, from -1, the lowest, to 1, the highest
    for values, squares in zip(kurtosis, squared, strict=True):
        sums = squares.sum(1)
        medoids = values[np.isclose(sums, sums.min(), rtol=1e-12, atol=0)]
        higher = np.sign(medoids[:, None] - values).sum(1)
        ranks.append(float(higher.mean() / max(1, len(values) - 1)))
    lead = float(np.dot(ranks, np.array([len(values) for values in kurtosis]) - 1))
    if not np.isclose(lead, 0, atol=1e-9):
        return lead > 0
    families = list(zip(within, kurtosis, strict=True))
    falls, grows = (
        sum(minimum_arborescence(_costs(config, *family, sign)).cost for family in families)
        for sign in (True, False)
    )
    return falls <= grows * (1 + 1e-12)
