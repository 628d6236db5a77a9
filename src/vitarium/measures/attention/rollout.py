"""Attention rollout: how much of each patch reaches a vision transformer's output."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from vitarium.evaluation.attention import BATCH_SIZE, OnImages, grid, watch
from vitarium.measures.base import EvalModel, NotApplicable, Values, measure

Heads = Literal["mean", "max", "min"]


class AttentionRollout(OnImages):
    heads: Heads = "mean"
    """How attention is combined over a block's heads: the mean, as in the paper, the maximum or the
    minimum."""


@measure("attention_rollout", unit="fraction", paper="Abnar and Zuidema 2020, arXiv 2005.00928")
def attention_rollout(config: AttentionRollout, subject: EvalModel) -> Values:
    """Attention rollout: how evenly it spreads over the patches, and the share at the center.

    "": entropy of an image's map divided by log(patches), 1 for an even one; "center": share of
    the map in the middle half of height and width, 1/4 for an even one. Means over images.
    """
    batches = subject.examples.first(config.num_images).batches(BATCH_SIZE)
    maps = torch.cat([rollout(subject.model, b.images, heads=config.heads) for b in batches])
    _, height, width = maps.shape
    if height * width == 1:
        raise NotApplicable(f"{subject.name} has one patch alone")
    entropy = torch.special.entr(maps).sum((1, 2)) / math.log(height * width)
    middle = _middle(height)[:, None] * _middle(width)
    central = (maps * middle.to(maps)).sum((1, 2))
    return {"": float(entropy.mean()), "center": float(central.mean())}


def rollout(model: nn.Module, images: Tensor, *, heads: Heads = "mean") -> Tensor:
    """Maps of what reaches the class token, or the mean patch where there is none.

    images [n, c, h, w] -> float64 [n, rows, columns] of patches, maps sum to 1; see `Rollout`.
    """
    attention_flow = Rollout(model, heads=heads)
    watch(model, images, attention_flow.see)
    return attention_flow.maps()


class Rollout:
    """The product over blocks of (A + I) / 2, A the attention of the heads together, its rows
    summing to 1 (Abnar and Zuidema 2020, Sec. 3); `see` is what `watch` takes."""

    def __init__(self, model: nn.Module, *, heads: Heads = "mean") -> None:
        self._grid, self._heads = grid(model), heads
        self._has_class = self._grid.prefix > 0 and getattr(model, "cls_token", None) is not None
        self._product: Tensor | None = None

    def see(self, name: str, attention: Tensor) -> None:
        """Takes the probabilities [n, heads, tokens, tokens] of the next block."""
        if attention.shape[-1] != self._grid.prefix + len(self._grid):
            raise NotApplicable(f"{name} has {attention.shape[-1]} tokens: not those of its grid")
        if self._heads == "mean":
            fused = attention.mean(1, dtype=torch.float64)
        else:
            fused = attention.amax(1) if self._heads == "max" else attention.amin(1)
            fused = fused.double() / fused.double().sum(-1, keepdim=True)
        mixed = (fused + torch.eye(fused.shape[-1]).to(fused)) / 2
        self._product = mixed if self._product is None else mixed @ self._product

    def maps(self) -> Tensor:
        """Of the blocks that were seen: float64 [n, rows, columns] of patches, maps sum to 1."""
        assert self._product is not None, "no block was seen"
        prefix = self._grid.prefix
        product = self._product
        reached = product[:, 0] if self._has_class else product[:, prefix:].mean(1)
        patches = reached[:, prefix:]
        patches = patches / patches.sum(1, keepdim=True)
        return patches.unflatten(1, (self._grid.height, self._grid.width)).clone()


def _middle(count: int) -> Tensor:
    """How much of each of so many stripes lies in the middle half, float64."""
    edges = torch.arange(count + 1, dtype=torch.float64).clamp(count / 4, 3 * count / 4)
    return edges.diff()
