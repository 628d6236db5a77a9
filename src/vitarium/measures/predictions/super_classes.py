"""Groups of classes that a classifier confuses with each other."""

import numpy as np
from pydantic import Field
from scipy.linalg import qr

from vitarium.measures.base import Config, NotApplicable, Predictions, Values, measure


class SuperClasses(Config):
    """Such as guide the routers of an `image_moe`."""

    num_groups: int = Field(10, ge=2)
    """How many groups there are to be, e.g. as many as experts."""


@measure(
    "super_classes",
    unit="fraction",
    part_units={"expert": "number"},
    paper="Daxberger et al. 2023, arXiv 2309.04354; Damle et al. 2019, arXiv 1708.07481",
    quick=False,
    tiny={"num_groups": 3},
)
def super_classes(config: SuperClasses, predictions: Predictions) -> Values:
    """Groups of classes that are confused with each other, from the confusion matrix.

    "": share of wrong images whose predicted class is in the group of the right one. Parts
    "expert/CLASS": the number of each class's group, from 0; give them, in the order of the
    classes, as `super_classes` to an `image_moe`.
    """
    classes = predictions.logits.shape[1]
    if config.num_groups > classes:
        raise NotApplicable(f"{classes} classes make no {config.num_groups} groups; choose fewer")
    pairs = predictions.labels * classes + predictions.classes
    counts = np.bincount(pairs.numpy(), minlength=classes**2).reshape(classes, classes)
    np.fill_diagonal(counts, 0)
    if not counts.any():
        raise NotApplicable("no image is wrong, so no classes are confused; take other images")
    groups = confusion_groups(counts, config.num_groups)
    inside = counts[groups[:, None] == groups[None]].sum() / counts.sum()
    names = predictions.class_names or tuple(map(str, range(classes)))
    return {"": float(inside)} | {
        f"expert/{name}": float(group) for name, group in zip(names, groups, strict=True)
    }


def confusion_groups(counts: np.ndarray, num_groups: int) -> np.ndarray:
    """Groups of the nodes of a graph whose edges are confusions: int [classes].

    counts: images by right and by predicted class, [classes, classes]; what is right is ignored.

    Spectral clustering: the symmetric counts, normalized by the nodes' degrees, have eigenvectors
    that tell clusters apart; a pivoted QR decomposition assigns classes to them without chance
    (Damle et al. 2019, Algorithm 1). Groups are numbered by their first class.
    """
    weights = counts + counts.T.astype(float)
    np.fill_diagonal(weights, 0)
    # classes that are never confused have a little of all others, and no degree is zero
    weights += 1e-3 * weights.sum() / weights.size
    scale = weights.sum(1) ** -0.5
    vectors = np.linalg.eigh(scale[:, None] * weights * scale)[1][:, -num_groups:]
    pivots = qr(vectors.T, pivoting=True, mode="economic")[2][:num_groups]
    left, _, right = np.linalg.svd(vectors[pivots].T)
    assigned = np.abs(vectors @ (left @ right)).argmax(1)
    first = {group: number for number, group in reversed(list(enumerate(assigned)))}
    order = {group: number for number, group in enumerate(sorted(first, key=first.__getitem__))}
    return np.array([order[group] for group in assigned])
