"""Attention distance: how far, in pixels, a vision transformer's heads attend."""

import torch
from torch import Tensor

from vitarium.evaluation.attention import Grid, OnImages, grid, means_by_head
from vitarium.measures.base import EvalModel, NotApplicable, Values, measure


@measure("attention_distance", unit="pixels", paper="Dosovitskiy et al. 2021, arXiv 2010.11929")
def attention_distance(config: OnImages, subject: EvalModel) -> Values:
    """Mean attention distance: how far, in pixels, patches attend, per head and block.

    Distances of patch centers are weighted by attention (App. D.7), averaged over patches and
    images. What goes to the class token and registers has no distance: the rest is scaled to sum
    to 1. Parts: see `means_by_head`.
    """
    where = grid(subject.model)
    distance = distances(where, subject.examples.input_size[1:]).to(subject.examples.device)

    def summed(name: str, attention: Tensor) -> tuple[Tensor, Tensor]:
        patches = attention[:, :, where.prefix :, where.prefix :]
        if patches.shape[-1] != len(where):
            raise NotApplicable(f"{name} has {patches.shape[-1]} patches, not {len(where)}")
        share = patches.sum(-1)
        mean = (patches * distance).sum(-1) / share
        # A query may attend to the class token alone, up to rounding: it looks at no patch.
        looks = share > 0
        total = mean.where(looks, torch.zeros_like(mean)).sum((0, 2), dtype=torch.float64)
        return total, looks.sum((0, 2))

    return means_by_head(subject, config.num_images, summed)


def distances(where: Grid, image: tuple[int, int]) -> Tensor:
    """Between the centers of patches, in pixels: float32 [patches, patches]."""
    rows = torch.arange(where.height) * (image[0] / where.height)
    columns = torch.arange(where.width) * (image[1] / where.width)
    centers = torch.cartesian_prod(rows, columns)
    return (centers[:, None] - centers).norm(dim=-1)
