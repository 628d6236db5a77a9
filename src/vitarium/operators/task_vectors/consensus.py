"""Consensus merging: only the entries that several tasks make use of."""

from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveInt

from vitarium.core.errors import InvalidInput
from vitarium.operators.base import Ingredients, NamedTensors, Weighted, by_model, operator
from vitarium.operators.task_vectors._task_vectors import combined, trimmed

STRICTNESS = 0.4


class Consensus(Weighted):
    """Base + scaling_factor x consensus mask x multi-task vector."""

    at_least: PositiveInt = 2
    """How many models have to make use of an entry: 1 drops those of no use to any ("catastrophic"
    ones), 2 also those that one alone uses ("selfish")."""
    strictness: NonNegativeFloat | dict[str, NonNegativeFloat] = STRICTNESS
    """The paper's lambda of the masks: the larger, the fewer entries a model is said to make use
    of. One number, or numbers by how models' ids begin; the others have 0.4."""
    combination_type: Literal["sum", "ties"] = "sum"
    """The multi-task vector: the sum, or the sum of trimmed entries that have the elected sign."""
    density: Annotated[float, Field(gt=0, le=1)] = 0.2
    """For TIES: share of the whole vector's entries that are kept, the largest."""
    scaling_factor: float = 0.3
    """What the merged task vector is multiplied with."""


@operator(
    "consensus",
    title="Consensus TA",
    needs_base=True,
    paper="Wang et al. 2024, arXiv 2405.07813",
    identity_on_copies={"strictness": 0, "scaling_factor": 1 / 3},
)
def consensus(config: Consensus, ingredients: Ingredients) -> NamedTensors:
    """Add up task vectors where at least some of the models make use of the sum.

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
