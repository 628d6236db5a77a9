"""The settings of the study of soups."""

from pydantic import NonNegativeInt, PositiveInt

from vitarium.measures.landscape._paths import PathPoints
from vitarium.studies.statistics.bootstrap import Resampled


class Soups(Resampled):
    """Settings of the study of soups."""

    methods: tuple[str, ...] = (
        "uniform_soup",
        "greedy_soup",
        "learned_soup",
        "model_stock",
        "task_arithmetic",
        "ties",
        "dare",
        "drm",
        "wise_ft",
        "epoch_average",
        "weight_matching",
        "orthogonal_matching",
    )
    """Operators, with their defaults: those that combine models, one model with what it started
    from, or epochs of one model; and those that align, before uniform and greedy soups."""
    last: tuple[PositiveInt, ...] = (2, 3, 5)
    """How many of a model's last epochs are averaged."""
    most_ingredients: PositiveInt = 16
    """Models of a group up to which soups of the best 1, 2, ... are made."""
    pairs: PositiveInt = 60
    """Of models between which barriers are measured: at most so many of each kinship, drawn in an
    order that does not depend on anything else."""
    aligned_pairs: NonNegativeInt = 8
    """So many of these also after each alignment."""
    points: PathPoints = 11
    """Models on the way between two, both ends among them; odd, for the one halfway."""
    barrier_images: PositiveInt = 512
    """At most so many images for each barrier."""
