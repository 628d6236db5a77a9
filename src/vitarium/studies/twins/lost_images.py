"""Images that originals have right, and their twins do not."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vitarium.studies.statistics.bootstrap import Numbers
from vitarium.studies.twins.comparison import Family, Member

MOST = 0.5
"""Share of the twins above which an image counts as lost by most."""


@dataclass(frozen=True)
class LostImage:
    """An image that its original has right.

    Args:
        number: in the images that were looked at.
        predicted: the class that most of the twins that lose it predict.
        losers: twins that lose it.
    """

    number: int
    label: str
    predicted: str
    losers: Sequence[Member]


def lost_matrix(family: Family) -> Numbers:
    """Which twin loses which image, 1 or 0: float64 [twins, images]."""
    if not family.comparable:
        return np.zeros((0, 0))
    return np.stack([family.lost(twin) for twin in family.comparable]).astype(np.float64)


def lost_images(family: Family) -> list[LostImage]:
    """Those that most twins lose first; of as many, in the order of the images."""
    matrix = lost_matrix(family)
    if not matrix.any():
        return []
    counts = matrix.sum(0)
    chosen = sorted(np.flatnonzero(counts).tolist(), key=lambda number: (-counts[number], number))
    return [_lost_image(family, number) for number in chosen]


def _lost_image(family: Family, number: int) -> LostImage:
    original = family.original.predictions
    assert original is not None
    losers = [twin for twin in family.comparable if family.lost(twin)[number]]
    classes = [int(twin.predictions.classes[number]) for twin in losers if twin.predictions]
    most = max(sorted(set(classes)), key=classes.count)
    label, predicted = (
        _name(original.class_names, each) for each in (int(original.labels[number]), most)
    )
    return LostImage(number, label, predicted, losers)


def _name(names: Sequence[str], number: int) -> str:
    return names[number] if number < len(names) else str(number)


def lost_by_most(family: Family) -> float | None:
    """Of the images that some twin loses, the share that most lose; None: there are none."""
    matrix = lost_matrix(family)
    shares = matrix.mean(0)[matrix.any(0)] if matrix.size else np.zeros(0)
    return float((shares > MOST).mean()) if len(shares) else None
