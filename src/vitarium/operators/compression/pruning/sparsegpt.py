"""SparseGPT: weights become zero, and later ones of their row make up for them."""

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from vitarium.operators.base import Ingredients, NamedTensors, operator
from vitarium.operators.compression._calibration import gram
from vitarium.operators.compression.pruning._by_inputs import PruningByInputs, prune_by_inputs


class SparseGpt(PruningByInputs):
    damping: float = Field(0.01, ge=0)
    """Added to the diagonal of the Hessian, as a share of its mean."""
    block_columns: PositiveInt = 128
    """Columns of a matrix for which it is decided at once which weights stay."""


@operator(
    "sparsegpt",
    title="SparseGPT",
    paper="Frantar & Alistarh 2023, arXiv 2301.00774",
    models=(1, 1),
    split="train",
    compression="post_training",
    tiny={"num_images": 32, "batch_size": 16},
)
def sparsegpt(config: SparseGpt, ingredients: Ingredients) -> NamedTensors:
    """Set weights of the blocks' linear layers to zero, and change others to make up for them.

    Yields (name, tensor [*shape]), but for these the model's own. The squared error of a layer's
    outputs on training images is kept small by `sparsegpt_matrix`. The share of zeros is logged as
    `sparsity`. Raises IncompatibleWeights for a model without linear layers in blocks, or that is
    as sparse already.
    """

    def prune(weight: Tensor, mean_gram: Tensor) -> Tensor:
        return sparsegpt_matrix(config, weight, mean_gram)

    yield from prune_by_inputs(config, ingredients, gram, prune)


def sparsegpt_matrix(config: SparseGpt, weight: Tensor, mean_gram: Tensor) -> Tensor:
    """A sparse matrix [out, in], float64, for a weight [out, in] with inputs x.

    With H = 2 E[x x'] + damping mean(diag H) I and the upper R of H^-1 = R' R, columns go from left
    to right: where weight j of a row becomes zero, its later ones change by -w_j R_j,j: / R_jj,
    which is the least squares solution given all earlier ones (Algorithm 1). Weights with the
    smallest w^2 / R_jj^2 go: of `block_columns` columns together, or of each run of a pattern.
    Inputs that are always zero get no weight.

    Args:
        mean_gram: E[x x'], [in, in], float64.
    """
    weight = weight.clone()
    factor = inverse_factor(weight, mean_gram, config.damping)
    diagonal = factor.diagonal()
    run = config.group[1] if config.group else config.block_columns
    for start in range(0, weight.shape[1], run):
        part, rows = weight[:, start : start + run], factor[start : start + run]
        stop = start + part.shape[1]
        mask = config.mask_matrix((part / diagonal[start:stop]).square())
        errors = torch.zeros_like(part)
        for column, stays in enumerate(mask.unbind(1)):
            errors[:, column] = (
                torch.where(stays, 0, part[:, column]) / rows[column, start + column]
            )
            part[:, column:] -= torch.outer(errors[:, column], rows[column, start + column : stop])
            part[:, column].masked_fill_(~stays, 0)
        weight[:, stop:] -= errors @ rows[:, stop:]
    return weight


def inverse_factor(weight: Tensor, mean_gram: Tensor, damping: float) -> Tensor:
    """The upper R [in, in] with R' R = H^-1; columns of the weight [out, in] without input become
    zero in place, and get a unit of the Hessian of their own."""
    hessian = 2 * mean_gram
    is_dead = hessian.diagonal() == 0
    weight[:, is_dead] = 0
    hessian.diagonal()[is_dead] = 1
    hessian.diagonal().add_(damping * hessian.diagonal().mean())
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    return torch.linalg.cholesky(inverse, upper=True)
