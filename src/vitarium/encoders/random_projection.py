"""Random projection: all weights as a few numbers, at about the same distances."""

import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor

from vitarium.core.seeds import derive
from vitarium.encoders.base import Config, NotApplicable, Weights, weight_encoder

PAPER = (
    "Johnson and Lindenstrauss 1984; with one entry per column: Weinberger et al. 2009, Feature "
    "Hashing for Large Scale Multitask Learning, arXiv 0902.2206"
)


class RandomProjection(Config):
    dim: PositiveInt = 1024
    """Length of the vector: distances are right to about 1 / sqrt(2 dim), 2.2 % for 1024."""
    seed: NonNegativeInt = 0
    """Random seed of the projection."""


@weight_encoder("random_projection", title="weights", paper=PAPER, any_architecture=True)
def random_projection(config: RandomProjection, weights: Weights) -> Tensor:
    """All weights but the heads', projected at random; distances are accurate to about 2 %.

    Returns float64 [dim]; the 2 % are for 1,024 numbers. Tensors of the same name and shape are
    projected in the same way in all models; those that another model lacks count as zeros there.
    """
    vector = torch.zeros(config.dim, dtype=torch.float64)
    for name, tensor in weights.floats():
        vector += project(tensor, name, dim=config.dim, seed=config.seed)
    if not len(weights.shapes):
        raise NotApplicable(f"{weights.name}: its backbone has no weights")
    return vector


def project(tensor: Tensor, name: str, *, dim: int, seed: int = 0) -> Tensor:
    """A tensor [*shape] -> float64 [dim], linear, and the same map for the same name and shape.

    Each entry is added to one of the numbers, drawn at random, with a random sign. As with a dense
    Gaussian matrix, squared lengths are kept on average, with a variance of at most 2 / dim of
    their square; but no matrix of entries times dim numbers is drawn, which for a ViT-S and 1024
    numbers would be 22 billion of them per model.
    """
    generator = torch.Generator().manual_seed(derive(seed, "projection", name, *tensor.shape))
    targets = torch.randint(2 * dim, (tensor.numel(),), generator=generator)
    sums = torch.bincount(targets, tensor.double().flatten(), minlength=2 * dim)
    return sums[:dim] - sums[dim:]
