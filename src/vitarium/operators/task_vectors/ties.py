"""TIES: trim, elect signs, and average what agrees."""

from typing import Annotated, Literal

from pydantic import Field

from vitarium.operators.base import Ingredients, NamedTensors, operator
from vitarium.operators.task_vectors._task_vectors import Scaled, trimmed


class Ties(Scaled):
    """Base + scaling_factor x disjoint mean of the trimmed task vectors."""

    density: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Share of a task vector's entries that is kept, the largest."""
    scaling_factor: float = 1.0
    """Factor of the merged task vector (the paper's lambda, 1 if it is not tuned)."""
    trim: Literal["vector", "tensor"] = "vector"
    """Whether entries are trimmed over the whole task vector, as in the paper, or in each tensor by
    itself, as in mergekit."""


@operator(
    "ties",
    title="TIES",
    needs_base=True,
    paper="Yadav et al. 2023, arXiv 2306.01708",
    identity_on_copies={"density": 1},
)
def ties(config: Ties, ingredients: Ingredients) -> NamedTensors:
    """TIES: trim task vectors, elect a sign for each entry, and add the mean of those that agree.

    Yields (name, tensor [*shape]) in float64. With `density=1`, the mean of all entries with that
    sign; copies of one model then give it. `trim="tensor"` gives mergekit's numbers, but for
    entries that cancel out exactly: mergekit elects +, the paper the sign that is more frequent.
    """
    vectors = trimmed(ingredients.deltas, config.density, config.trim)
    yield from config.merge(ingredients, vectors, "ties")
