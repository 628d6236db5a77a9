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
    """Operators, with their default settings: those that combine models, a model with its parent,
    or the epochs of one model; and those that align models, before uniform and greedy soups."""
    last: tuple[PositiveInt, ...] = (2, 3, 5)
    """Numbers of a model's last epochs that are averaged."""
    most_ingredients: PositiveInt = 16
    """Largest group of models for which soups of the best 1, 2, ... are made."""
    pairs: PositiveInt = 60
    """Largest number of pairs of models of each kinship between which barriers are measured, drawn
    at random."""
    aligned_pairs: NonNegativeInt = 8
    """Number of these pairs that are measured after each alignment, too."""
    points: PathPoints = 11
    """Number of models evaluated on the line between two, both ends included; an odd number, so
    that the midpoint is one."""
    barrier_images: PositiveInt = 512
    """Largest number of images for each barrier."""
