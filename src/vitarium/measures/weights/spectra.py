"""Spectral norm, stable rank and effective rank, from singular values computed once."""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from vitarium.core.config import Config
from vitarium.core.errors import NotApplicable
from vitarium.evaluation.inputs import Values, Weights
from vitarium.measures.base import measure
from vitarium.measures.weights._matrices import head_matrices, matrices


class Spectrum(Config):
    """Of which matrices: every layer's, and queries, keys and values of fused ones."""

    heads: bool = False
    """Each attention head's queries, keys and values, too: `blocks.0.attn.qkv.weight/q/head0`."""


@measure(
    "spectral_norm",
    config=Spectrum,
    of="model",
    needs="weights",
    unit="norm",
    title="spectral norm",
)
def spectral_norm(config: Spectrum, weights: Weights) -> Values:
    """Largest singular value of every weight matrix; whole: the mean over layers."""
    return per_layer(config, weights, lambda values: float(values[0]))


@measure(
    "stable_rank",
    config=Spectrum,
    of="model",
    needs="weights",
    unit="rank",
    title="stable rank",
    paper="Rudelson and Vershynin 2007, Sampling from large matrices, arXiv math/0503442",
)
def stable_rank(config: Spectrum, weights: Weights) -> Values:
    """Squared Frobenius over squared spectral norm of every weight matrix; whole: mean of layers.

    At least 1, at most the rank. A matrix of zeros has none, and is left out.
    """
    return per_layer(config, weights, _stable_rank)


@measure(
    "effective_rank",
    config=Spectrum,
    of="model",
    needs="weights",
    unit="rank",
    title="effective rank",
    paper="Roy and Vetterli 2007, The effective rank, EUSIPCO",
)
def effective_rank(config: Spectrum, weights: Weights) -> Values:
    """exp of the entropy of every weight matrix's singular values; whole: the mean over layers.

    The singular values are divided by their sum (not squared). At least 1, at most the rank. A
    matrix of zeros has none, and is left out.
    """
    return per_layer(config, weights, _effective_rank)


def singular_values(weights: Weights, heads: bool = False) -> Mapping[str, Tensor]:
    """Singular values [rank] of every weight matrix by part, float64, the largest first.

    With `heads`, those of each attention head's matrices, too.
    """
    values = weights.remember("singular values", lambda: _svd(matrices(weights)))
    if heads:
        values = values | weights.remember("... of heads", lambda: _svd(head_matrices(weights)))
    return values


def per_layer(
    config: Spectrum, weights: Weights, value: Callable[[Tensor], float | None]
) -> Values:
    """A value of every matrix from its singular values [rank]; whole: the mean over layers.

    Queries, keys, values and heads are in their layer's matrix, so they do not count again. None
    is no value. Raises NotApplicable where no layer has one.
    """
    values = {part: value(s) for part, s in singular_values(weights, config.heads).items()}
    parts = {part: number for part, number in values.items() if number is not None}
    of_layers = [number for part, number in parts.items() if part in weights.shapes]
    if not of_layers:
        raise NotApplicable(f"{weights.name} has no weight matrix that has this value")
    return {"": sum(of_layers) / len(of_layers), **parts}


def _svd(named_matrices: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    return {part: torch.linalg.svdvals(matrix.double()) for part, matrix in named_matrices}


def _stable_rank(values: Tensor) -> float | None:
    if not values[0]:
        return None
    return float((values / values[0]).square().sum())


def _effective_rank(values: Tensor) -> float | None:
    if not values[0]:
        return None
    return float(torch.special.entr(values / values.sum()).sum().exp())
