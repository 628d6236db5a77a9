"""The baseline that any method of lineage recovery has to beat: stars around the nearest root."""

import numpy as np

from vitarium.core.config import Config
from vitarium.core.errors import InvalidInput, UnknownName
from vitarium.core.registry import lineage
from vitarium.lineage._canonical_order import by_name, first_appearance, tied
from vitarium.lineage._ward import families
from vitarium.lineage.forest import Edge, Forest
from vitarium.lineage.methods._layer_distances import l2
from vitarium.lineage.model_set import Heap


class NearestRoot(Config):
    roots: tuple[str, ...] = ()
    """Names of the pre-trained models. Without: of each family its medoid, the model from which
    the squared distances to the others are least."""


@lineage("nearest_root", config=NearestRoot)
@by_name
def nearest_root(config: NearestRoot, heap: Heap, trees: int | None) -> Forest:
    """Every model is a child of the root that is nearest to it by l2 distance.

    A root's confidence is 1 where it is given, and otherwise by how much the medoid stands out:
    second / (first + second), of sums of squared distances. An edge's is that of its root times
    second / (first + second), of the distances to the two nearest roots.

    Raises UnknownName of a root that is no model, and InvalidInput where `trees` is not the number
    of roots, or more than there are models.
    """
    squared = heap.evidence.squared_distances()
    if config.roots:
        sure = dict.fromkeys(_places(config.roots, heap, trees), 1.0)
    else:
        sure = {}
        labels = families(heap, l2(heap), trees)
        for label in range(labels.max() + 1):
            places = np.flatnonzero(labels == label)
            sums = squared[np.ix_(places, places)].sum(1)
            sure[int(places[sums.argmin()])] = ahead(sums)
    roots = np.array(list(sure))
    nearest = roots[squared[:, roots].argmin(1)]
    nearest[roots] = roots  # also of two roots that are copies
    edges = [
        Edge(heap.names[root], name, sure[int(root)] * ahead(np.sqrt(squared[place, roots])))
        for place, (name, root) in enumerate(zip(heap.names, nearest, strict=True))
        if place not in sure
    ]
    of_roots = {heap.names[place]: value for place, value in sure.items()}
    labels = first_appearance(nearest)
    return Forest("nearest_root", heap.names, labels.tolist(), edges, of_roots, tied(heap))


def ahead(distances: np.ndarray) -> float:
    """How clearly the smallest is the smallest: from 1/2, where another is as small, to 1."""
    if len(distances) < 2:
        return 1.0
    first, second = np.partition(distances, 1)[:2]
    return float(second / (first + second)) if second > 0 else 0.5


def _places(roots: tuple[str, ...], heap: Heap, trees: int | None) -> list[int]:
    places = {name: place for place, name in enumerate(heap.names)}
    for name in roots:
        if name not in places:
            raise UnknownName("model", name, places)
    found = sorted({places[name] for name in roots})
    if trees not in (None, len(found)):
        raise InvalidInput(
            f"{trees} trees are asked for and {len(found)} roots are named; leave one of them out"
        )
    return found
