"""The baseline that any method of lineage recovery has to beat: stars around the nearest root."""

import numpy as np

from vitarium.core.config import Config
from vitarium.core.errors import InvalidInput, UnknownName
from vitarium.lineage._canonical_order import canonical_order, first_appearance, tied
from vitarium.lineage._clusters import families_by_distance
from vitarium.lineage.base import lineage
from vitarium.lineage.forest import Edge, Forest
from vitarium.lineage.methods._layer_distances import l2
from vitarium.lineage.model_set import ModelSet


class NearestRoot(Config):
    roots: tuple[str, ...] = ()
    """Names of the pre-trained models. Without: of each family its medoid, the model from which
    the squared distances to the others are least."""


@lineage("nearest_root", config=NearestRoot)
@canonical_order
def nearest_root(config: NearestRoot, model_set: ModelSet, trees: int | None) -> Forest:
    """Every model is a child of the root that is nearest to it by l2 distance.

    A root's confidence is 1 where it is given, and otherwise by how much the medoid stands out:
    second / (first + second), of sums of squared distances. An edge's is that of its root times
    second / (first + second), of the distances to the two nearest roots.

    Raises UnknownName of a root that is no model, and InvalidInput where `trees` is not the number
    of roots, or more than there are models.
    """
    squared = model_set.statistics.squared_distances()
    if config.roots:
        confidence = dict.fromkeys(_root_indices(config.roots, model_set, trees), 1.0)
    else:
        confidence = {}
        labels = families_by_distance(model_set, l2(model_set), trees)
        for label in range(labels.max() + 1):
            indices = np.flatnonzero(labels == label)
            sums = squared[np.ix_(indices, indices)].sum(1)
            confidence[int(indices[sums.argmin()])] = margin(sums)
    roots = np.array(list(confidence))
    nearest = roots[squared[:, roots].argmin(1)]
    nearest[roots] = roots  # also of two roots that are copies
    edges = [
        Edge(
            model_set.names[root],
            name,
            confidence[int(root)] * margin(np.sqrt(squared[index, roots])),
        )
        for index, (name, root) in enumerate(zip(model_set.names, nearest, strict=True))
        if index not in confidence
    ]
    of_roots = {model_set.names[index]: value for index, value in confidence.items()}
    labels = first_appearance(nearest)
    return Forest(
        "nearest_root", model_set.names, labels.tolist(), edges, of_roots, tied(model_set)
    )


def margin(distances: np.ndarray) -> float:
    """Second smallest of distances [n] by the sum of the two smallest: from 1/2, a tie, to 1."""
    if len(distances) < 2:
        return 1.0
    first, second = np.partition(distances, 1)[:2]
    return float(second / (first + second)) if second > 0 else 0.5


def _root_indices(roots: tuple[str, ...], model_set: ModelSet, trees: int | None) -> list[int]:
    index_of = {name: index for index, name in enumerate(model_set.names)}
    for name in roots:
        if name not in index_of:
            raise UnknownName("model", name, index_of)
    root_indices = sorted({index_of[name] for name in roots})
    if trees not in (None, len(root_indices)):
        raise InvalidInput(
            f"{trees} trees are asked for and {len(root_indices)} roots are named; leave one of "
            "them out"
        )
    return root_indices
