"""Similarities of projections, what is lost by them, and the batches that they need."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def unit(values: Tensor) -> Tensor:
    """Rows of length 1, in float32: [n, width] -> the same"""
    return F.normalize(values.float(), dim=1)


def info_nce(queries: Tensor, keys: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of each query with its own key among all keys, a scalar.

    queries, keys: rows of length 1, [n, width]
    """
    own = torch.arange(len(queries), device=queries.device)
    return F.cross_entropy(queries @ keys.T / temperature, own)


def matches(queries: Tensor, keys: Tensor) -> Tensor:
    """Share of the queries to which their own key is nearest, a scalar: rows of length 1, [n,
    width]"""
    own = torch.arange(len(queries), device=queries.device)
    return ((queries @ keys.T).argmax(1) == own).float().mean()


def needs_two_images(config: Any, recipe: Any) -> Mapping[str, str]:
    """A fact `misfits`: nothing can be compared in a batch of one image."""
    if recipe.batch_size > 1:
        return {}
    what = f"objective '{recipe.objective.name}' compares the images of a batch"
    return {"batch_size": f"{what}: give 2 at least"}
