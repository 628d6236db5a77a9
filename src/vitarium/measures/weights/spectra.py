"""Spectral norm, stable rank and effective rank, from singular values computed once."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from vitarium.measures.base import Config, NotApplicable, Values, Weights, measure
from vitarium.measures.weights._matrices import head_matrices, matrices


class Spectrum(Config):
    """Of which matrices: every layer's, and queries, keys and values of fused ones."""

    heads: bool = False
    """Also measure each attention head's queries, keys and values by themselves, as parts such as
    `blocks.0.attn.qkv.weight/q/head0`."""


@measure("spectral_norm", unit="norm")
def spectral_norm(config: Spectrum, weights: Weights) -> Values:
    """Spectral norm (largest singular value) of each weight matrix, and their mean over layers."""
    return per_layer(config, weights, lambda values: float(values[0]))


@measure(
    "stable_rank",
    unit="rank",
    paper="Rudelson and Vershynin 2007, Sampling from large matrices, arXiv math/0503442",
)
def stable_rank(config: Spectrum, weights: Weights) -> Values:
    """Stable rank, the squared Frobenius over the squared spectral norm, of each weight matrix.

    At least 1, at most the rank. A matrix of zeros is left out. "": the mean over layers.
    """
    return per_layer(config, weights, lambda s: float((s / s[0]).square().sum()), of_zeros=False)


@measure("effective_rank", unit="rank", paper="Roy and Vetterli 2007, The effective rank, EUSIPCO")
def effective_rank(config: Spectrum, weights: Weights) -> Values:
    """Effective rank of each weight matrix (exp of its spectrum's entropy), and their mean.

    Singular values are divided by their sum (not squared). At least 1, at most the rank; a matrix
    of zeros is left out.
    """
    return per_layer(
        config,
        weights,
        lambda s: float(torch.special.entr(s / s.sum()).sum().exp()),
        of_zeros=False,
    )


def per_layer(
    config: Spectrum,
    weights: Weights,
    value: Callable[[Tensor], float | None],
    of_zeros: bool = True,
) -> Values:
    """A value of every matrix from its singular values [rank], float64, the largest first.

    Whole: the mean over layers; their queries, keys, values and heads do not count again. None is
    no value; `of_zeros`: whether zeros have one. Raises NotApplicable where no layer has one.
    """
    singular = weights.remember("singular values", lambda: _svd(matrices(weights)))
    if config.heads:
        heads = weights.remember("... of heads", lambda: _svd(head_matrices(weights)))
        singular = singular | heads
    values = {part: value(s) for part, s in singular.items() if of_zeros or s[0]}
    parts = {part: number for part, number in values.items() if number is not None}
    of_layers = [number for part, number in parts.items() if part in weights.shapes]
    if not of_layers:
        raise NotApplicable(f"{weights.name} has no weight matrix that has this value")
    return {"": sum(of_layers) / len(of_layers), **parts}


def _svd(named_matrices: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    return {part: torch.linalg.svdvals(matrix.double()) for part, matrix in named_matrices}
