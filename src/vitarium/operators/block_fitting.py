"""The shared weights nearest to what all blocks of a group do: their heads, and their MLPs."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from vitarium.operators import unit_fitting
from vitarium.operators.head_fitting import Reading, SharedForms, Side
from vitarium.operators.unit_fitting import SharedUnits, Units

Parts = dict[str, Tensor]
"""A block's tensors: `norm1.weight`, `attn.qkv.weight`, ..."""
_TOLERANCE = 1e-3
_SWEEPS = 12


@dataclass(frozen=True)
class FittedBlocks:
    """What a group's blocks share, and what each has of its own; float64."""

    shared: Parts
    own: list[Parts]
    errors: dict[str, float]
    """Squared error relative to what the blocks do: `logits`, `values` and `units`."""


def fitted(
    blocks: Sequence[Parts],
    starts: Sequence[Parts],
    *,
    num_heads: int,
    mix_before: bool = True,
    mix_after: bool = True,
    own_norms: bool = True,
) -> FittedBlocks:
    """Shared weights and what goes with them, at most as far from the blocks as any of the starts.

    Args:
        starts: shared weights to begin with, norms included; the best one is taken.
        own_norms: whether each block has norms of its own; else all have those of the start.
    """
    blocks = [_doubles(block) for block in blocks]
    starts = [_doubles(start) for start in starts]
    heads = min(
        (
            _Heads(targets, start, num_heads, own_norms)
            for start in starts
            for targets in (blocks, _aligned(blocks, start, num_heads))
        ),
        key=lambda one: one.error,
    )
    raise NotImplementedError


def _doubles(block: Parts) -> Parts:
    return {name: tensor.double() for name, tensor in block.items()}
