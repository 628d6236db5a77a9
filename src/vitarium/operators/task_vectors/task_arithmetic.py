"""Task arithmetic: what models added to their base is added up."""

from typing import Literal

from vitarium.operators.base import Ingredients, NamedTensors, operator
from vitarium.operators.task_vectors._task_vectors import Scaled


class TaskArithmetic(Scaled):
    """Base + scaling_factor x sum of (weight x task vector)."""

    scaling_factor: float = 0.3
    """Factor of the merged task vector (the paper's scaling coefficient); 0.3 is its choice for
    eight tasks, 1 adds all of them."""
    combination_type: Literal["sum", "mean"] = "sum"
    """How task vectors are combined: their sum, as in the paper, or their weighted mean; with
    scaling_factor 1 the latter gives the mean of the models' weights."""


@operator(
    "task_arithmetic",
    title="Task arithmetic",
    needs_base=True,
    paper="Ilharco et al. 2023, arXiv 2212.04089",
    identity_on_copies={"scaling_factor": 1, "combination_type": "mean"},
)
def task_arithmetic(config: TaskArithmetic, ingredients: Ingredients) -> NamedTensors:
    """Task arithmetic: the base plus a multiple of the sum of the models' task vectors.

    Yields (name, tensor [*shape]) in float64. Copies of one model add its task vector as often: k
    of them give the model only where scaling_factor x k is 1, or with `combination_type="mean"` and
    `scaling_factor=1`. Raises InvalidInput for weights of models that there are not.
    """
    yield from config.merge(ingredients, ingredients.deltas, config.combination_type)
