"""Wanda: weights become zero that are small, or whose inputs are."""

import torch
from torch import Tensor

from vitarium.operators.base import Ingredients, NamedTensors, operator
from vitarium.operators.compression._calibration import squares
from vitarium.operators.compression.pruning._by_inputs import PruningByInputs, prune_by_inputs


@operator(
    "wanda",
    title="Wanda",
    paper="Sun et al. 2023, arXiv 2306.11695",
    models=(1, 1),
    split="train",
    compression="post_training",
    tiny={"num_images": 32, "batch_size": 16},
)
def wanda(config: PruningByInputs, ingredients: Ingredients) -> NamedTensors:
    """Set weights of the blocks' linear layers to zero whose products with their inputs are small.

    Yields (name, tensor [*shape]), but for these the model's own. In each row, or each run of
    inputs of a pattern, so many stay that have the largest |w_ij| times the root mean square of
    input j over images and tokens. The share of zeros is logged as `sparsity`. Raises
    IncompatibleWeights for a model without linear layers in blocks, or that is as sparse already.
    """

    def prune(weight: Tensor, mean_squares: Tensor) -> Tensor:
        return torch.where(config.mask_rows(wanda_scores(weight, mean_squares)), weight, 0)

    yield from prune_by_inputs(config, ingredients, squares, prune)


def wanda_scores(weight: Tensor, mean_squares: Tensor) -> Tensor:
    """Weight [out, in] and mean squares of its inputs [in] -> scores [out, in] (Sec. 3, eq. 1)."""
    return weight.abs() * mean_squares.sqrt()
