"""DELLA: drop small entries of task vectors more often than large ones."""

from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from vitarium.operators.base import Ingredients, NamedTensors, operator
from vitarium.operators.task_vectors._task_vectors import (
    CombinationType,
    Rescale,
    Scaled,
    randomly_dropped,
)


class Della(Scaled):
    """Base + scaling_factor x what is left of the task vectors, together."""

    drop_rate: Annotated[float, Field(ge=0, lt=1)] = 0.7
    """Mean probability of dropping an entry of a task vector, in [0, 1)."""
    window: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Difference of the drop probabilities of the smallest and the largest entry (the paper's
    epsilon; mergekit's `epsilon` is half of it)."""
    rank: Literal["row", "tensor"] = "row"
    """Where entries are ranked by size: in their row, i.e. all weights of one output, or in their
    tensor."""
    combination_type: CombinationType = "ties"
    """How the remaining entries are combined: the mean of those with the elected sign, as in the
    paper (ties), the mean of all, or their sum."""
    scaling_factor: float = 1.0
    """Factor of the merged task vector (the paper's lambda)."""
    rescale: Rescale = "exact"
    """Factor of the remaining entries: one over the probability of being kept, as in the paper
    (exact), or what restores the tensor's L1 norm (l1)."""
    seed: int = 0
    """Random seed of the choice of dropped entries."""

    @model_validator(mode="after")
    def _are_probabilities(self) -> Self:
        half = self.window / 2
        if self.drop_rate - half < 0 or self.drop_rate + half >= 1:
            raise ValueError(
                f"drop_rate - window / 2 = {self.drop_rate - half:g} and drop_rate + window / 2 = "
                f"{self.drop_rate + half:g} are to be probabilities, the second below 1"
            )
        return self


@operator(
    "della",
    title="DELLA",
    needs_base=True,
    paper="Deep et al. 2024, arXiv 2406.11617",
    identity_on_copies={"drop_rate": 0, "window": 0},
)
def della(config: Della, ingredients: Ingredients) -> NamedTensors:
    """DELLA: drop entries of task vectors at random, small ones more often, rescale, and merge.

    Yields (name, tensor [*shape]) in float64. Drop probabilities fall evenly with the rank of an
    entry's magnitude, from drop_rate + window / 2 to drop_rate - window / 2, as in the authors'
    code; a row of one entry has `drop_rate`. The expectation of what is left is the task vector, so
    with `combination_type="mean"` copies of one model give it in expectation. `rescale="l1"` is
    mergekit's.
    """

    def keep(delta: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
        share = kept_share(config, delta)
        return drawn < share, share

    vectors = randomly_dropped(ingredients, config.seed, keep, config.rescale)
    yield from config.merge(ingredients, vectors, config.combination_type)


def kept_share(config: Della, delta: Tensor) -> Tensor:
    """The probability with which each entry is kept, [*shape]."""
    by_row = config.rank == "row" and delta.ndim > 1
    rows = delta.abs().reshape(len(delta) if by_row else 1, -1)
    largest = max(rows.shape[1] - 1, 1)
    order = rows.argsort(dim=1, stable=True)
    positions = torch.arange(rows.shape[1], dtype=delta.dtype, device=delta.device) / largest
    if rows.shape[1] == 1:
        positions += 0.5
    ranks = torch.empty_like(rows).scatter_(1, order, positions.expand_as(rows))
    return (1 - config.drop_rate + config.window * (ranks - 0.5)).reshape(delta.shape)
