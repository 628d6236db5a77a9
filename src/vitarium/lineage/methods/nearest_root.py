"""The baseline that any method of lineage recovery has to beat: stars around the nearest root."""

import numpy as np

from vitarium.core.config import Config
from vitarium.core.errors import InvalidInput, UnknownName
from vitarium.lineage._clusters import families_by_distance
from vitarium.lineage.base import (
    Edge,
    Forest,
    ModelSet,
    canonical_order,
    first_appearance,
    lineage,
    margin,
    tied,
)
from vitarium.lineage.methods._layer_distances import l2


class NearestRoot(Config):
    roots: tuple[str, ...] = ()
    """Names of the pre-trained models. If none are given: of each family its medoid, the model with
    the least sum of squared distances to the others."""


@lineage("nearest_root")
@canonical_order
def nearest_root(config: NearestRoot, model_set: ModelSet, trees: int | None) -> Forest:
    """Baseline: each model is a child of the pre-trained model nearest to it by l2 distance.

    A root's confidence is 1 where it is given, and otherwise by how much the medoid stands out:
    second / (first + second), of sums of squared distances. An edge's is that of its root times
    second / (first + second), of the distances to the two nearest roots.

    Raises UnknownName of a root that is no model, and InvalidInput where `trees` is not the number
    of roots, or more than there are models.
    """
    squared = model_set.statistics.squared_distances()
    if config.roots:
        index_of = {name: index for index, name in enumerate(model_set.names)}
        for name in config.roots:
            if name not in index_of:
                raise UnknownName("model", name, index_of)
        confidence = dict.fromkeys(sorted({index_of[name] for name in config.roots}), 1.0)
        if trees not in (None, len(confidence)):
            named = f"{len(confidence)} roots are named; leave one of them out"
            raise InvalidInput(f"{trees} trees are asked for and {named}")
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
    names, families, edges = model_set.names, first_appearance(nearest).tolist(), []
    for index, root in enumerate(nearest.tolist()):
        if index not in confidence:
            sure = confidence[root] * margin(np.sqrt(squared[index, roots]))
            edges.append(Edge(names[root], names[index], sure))
    of_roots = {names[index]: value for index, value in confidence.items()}
    return Forest("nearest_root", names, families, edges, of_roots, tied(model_set))
