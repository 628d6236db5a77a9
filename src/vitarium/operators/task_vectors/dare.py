"""DARE: drop entries of task vectors at random and rescale the others."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from vitarium.operators.base import Ingredients, NamedTensors, operator
from vitarium.operators.task_vectors._task_vectors import (
    CombinationType,
    Rescale,
    Scaled,
    randomly_dropped,
    trimmed,
)


class Dare(Scaled):
    """Base + scaling_factor x what is left of the task vectors, together."""

    drop_rate: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Probability of dropping an entry of a task vector, in [0, 1)."""
    combination_type: CombinationType = "mean"
    """How the remaining entries are combined: their mean, their sum (task arithmetic), or by
    TIES."""
    density: Annotated[float, Field(gt=0, le=1)] = 1.0
    """With ties: share of each task vector's entries that is kept after dropping, the largest."""
    rescale: Rescale = "exact"
    """Factor of the remaining entries: 1 / (1 - drop_rate), as in the paper (exact), or what
    restores the tensor's L1 norm (l1)."""
    seed: int = 0
    """Random seed of the choice of dropped entries."""

    @model_validator(mode="after")
    def _trims_for_ties(self) -> Self:
        if self.density < 1 and self.combination_type != "ties":
            raise ValueError("density is TIES' trimming: it goes with combination_type=ties")
        return self


@operator(
    "dare",
    title="DARE",
    needs_base=True,
    paper="Yu et al. 2024, arXiv 2311.03099",
    identity_on_copies={"drop_rate": 0},
)
def dare(config: Dare, ingredients: Ingredients) -> NamedTensors:
    """DARE: drop most entries of each task vector at random, rescale the rest, and merge.

    Yields (name, tensor [*shape]) in float64. Its expectation is what the method gives without
    dropping (for the mean and the sum), so copies of one model give it in expectation.
    `rescale="l1"` is mergekit's, whose factor varies.
    """
    vectors = randomly_dropped(
        ingredients,
        config.seed,
        lambda delta, drawn: (drawn >= config.drop_rate, 1 - config.drop_rate),
        config.rescale,
    )
    yield from config.merge(ingredients, trimmed(vectors, config.density), config.combination_type)
