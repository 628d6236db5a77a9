"""Consensus merging: only the entries that several tasks make use of."""

from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveInt

from vitarium.core.errors import InvalidInput
from vitarium.operators.base import Ingredients, NamedTensors, operator
from vitarium.operators.task_vectors._task_vectors import combined, trimmed
from vitarium.operators.weighting import Weighted, by_model

STRICTNESS = 0.4


class Consensus(Weighted):
    """Base + scaling_factor x consensus mask x multi-task vector."""

    at_least: PositiveInt = 2
    """Number of models that must use an entry for it to be kept: 1 drops entries of no use to any
    ("catastrophic"), 2 also those used by one model alone ("selfish")."""
    strictness: NonNegativeFloat | dict[str, NonNegativeFloat] = STRICTNESS
    """The paper's lambda of the masks: the larger, the fewer entries count as used by a model. One
    number, or numbers by the first digits of models' ids, 0.4 for the others."""
    combination_type: Literal["sum", "ties"] = "sum"
    """How the multi-task vector is made: the sum of the task vectors, or the sum of trimmed entries
    that have the elected sign (ties)."""
    density: Annotated[float, Field(gt=0, le=1)] = 0.2
    """With ties: share of each task vector's entries that is kept, the largest."""
    scaling_factor: float = 0.3
    """Factor of the merged task vector."""


@operator(
    "consensus",
    title="Consensus TA",
    needs_base=True,
    paper="Wang et al. 2024, arXiv 2405.07813",
    identity_on_copies={"strictness": 0, "scaling_factor": 1 / 3},
)
def consensus(config: Consensus, ingredients: Ingredients) -> NamedTensors:
    """Consensus merging: sum task vectors, keeping only entries that enough of the models use.

    Yields (name, tensor [*shape]) in float64. A model makes use of an entry where |its task vector|
    >= strictness x |the multi-task vector - its task vector| (eq. 3-4: the TALL mask). The
    multi-task vector of TIES is a sum, as in the authors' code, so that masks compare vectors of
    one size. Copies of one model add up, as in task arithmetic. Raises InvalidInput where
    `at_least` is more than there are models.
    """
    if config.at_least > len(ingredients):
        raise InvalidInput(
            f"at_least is {config.at_least}, and there are {len(ingredients)} models: nothing of "
            "them would be left"
        )
    weights = config.of(ingredients)
    if isinstance(config.strictness, dict):
        strictness = by_model(ingredients, config.strictness, STRICTNESS)
    else:
        strictness = [config.strictness] * len(ingredients)
    density = config.density if config.combination_type == "ties" else 1.0
    vectors = trimmed(ingredients.deltas, density)
    for name, base, merged in combined(vectors, weights, config.combination_type, mean=False):
        uses = torch.zeros_like(base)
        for tensor, factor in zip(ingredients.model_tensors(name), strictness, strict=True):
            task_vector = tensor - base
            uses += task_vector.abs() >= factor * (merged - task_vector).abs()
        yield name, base + config.scaling_factor * merged.where(uses >= config.at_least, 0)
