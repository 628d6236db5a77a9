"""Model breadcrumbs: task vectors without their largest and their smallest entries."""

from collections.abc import Iterator
from typing import Annotated, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from vitarium.operators.base import Ingredients, NamedTensors, operator
from vitarium.operators.task_vectors._task_vectors import CombinationType, Scaled


class Breadcrumbs(Scaled):
    """Base + scaling_factor x what is left of the task vectors, together."""

    density: Annotated[float, Field(gt=0, le=1)] = 0.14
    """Share of each tensor's entries that is kept (mergekit's density)."""
    outliers: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """Share of each tensor's entries that is dropped as too large (mergekit's gamma); the smallest
    are dropped until `density` are left."""
    combination_type: CombinationType = "sum"
    """How the remaining entries are combined: their sum, as in the paper, their mean, or the mean
    of those with the elected sign (ties)."""
    scaling_factor: float = 0.3
    """Factor of the merged task vector (the paper's alpha)."""

    @model_validator(mode="after")
    def _leaves_that_many(self) -> Self:
        if self.density + self.outliers > 1:
            raise ValueError(f"density {self.density:g} and outliers {self.outliers:g} exceed 1")
        return self


@operator(
    "breadcrumbs",
    title="Model Breadcrumbs",
    needs_base=True,
    paper="Davari and Belilovsky 2024, arXiv 2312.06795",
    identity_on_copies={
        "density": 1,
        "outliers": 0,
        "scaling_factor": 1,
        "combination_type": "mean",
    },
)
def breadcrumbs(config: Breadcrumbs, ingredients: Ingredients) -> NamedTensors:
    """Model Breadcrumbs: merge task vectors without their largest and smallest entries.

    Yields (name, tensor [*shape]) in float64. Of n entries, int(outliers n) are dropped as too
    large and int(density n) kept, at least one: a small tensor loses no outliers, and is not lost.
    Copies of one model do not give it, since entries are dropped.
    """

    def vectors() -> Iterator[tuple[str, Tensor, Tensor]]:
        for name, base, deltas in ingredients.deltas():
            for flat in deltas.view(len(deltas), -1):
                count = max(1, int(config.density * len(flat)))
                outliers = int(config.outliers * len(flat))
                large = flat.abs().topk(outliers + count, sorted=False).indices
                largest = flat[large].abs().topk(outliers, sorted=False).indices
                left = torch.zeros_like(flat)
                left[large] = flat[large]
                left[large[largest]] = 0
                flat.copy_(left)
            yield name, base, deltas

    yield from config.merge(ingredients, vectors, config.combination_type)
