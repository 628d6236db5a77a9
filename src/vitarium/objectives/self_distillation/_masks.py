"""Which patches of its crops a student does not see: blocks, or patches at random."""

import math
from typing import Annotated, Literal

import torch
from pydantic import AfterValidator, Field
from torch import Tensor, nn

from vitarium.architectures.patch_tokens import patch_grid, require_plain
from vitarium.core.config import Config
from vitarium.core.errors import InvalidInput
from vitarium.objectives.base import TokenMasks

_TRIES = 20
"""Blocks that are drawn for a crop; those that hide nothing new, or too much, are left out."""
_ASPECT_RATIO = 0.3
"""Height over width of a block is drawn from this to its inverse, evenly in the logarithm."""


def _rising(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError("the first number has to be the smaller one")
    return bounds


_Share = Annotated[float, Field(gt=0, lt=1)]


class MaskedPatches(Config):
    """Settings of objectives that hide patches of global crops from the student."""

    mask_kind: Literal["blocks", "random"] = "blocks"
    """Which patches are hidden: those under random rectangles, or any."""
    mask_ratio: Annotated[tuple[_Share, _Share], AfterValidator(_rising)] = (0.1, 0.5)
    """Smallest and largest share of the patches that are hidden in a masked crop."""
    masked_crops: float = Field(0.5, gt=0, le=1)
    """Share of the global crops that are masked; the student sees the others whole."""


def patch_masks(
    config: MaskedPatches, model: nn.Module, *, smallest_block: int, evenly: bool
) -> TokenMasks:
    """Masks whose ratio is drawn for each crop.

    smallest_block: lower bound of a block's area, in patches.
    evenly: the number of masked crops in a batch is fixed, and their ratios lie evenly between the
        bounds (DINOv2); else each crop is masked, and its ratio drawn, by itself (iBOT).

    Raises InvalidInput where not one patch of a crop could be hidden.
    """
    rows, columns = grid = patch_grid(require_plain(model, "hiding patches"))
    patches, highest = rows * columns, config.mask_ratio[1]
    if int(patches * highest) < 1:
        raise InvalidInput(
            f"mask_ratio {highest} hides none of {patches} patches: choose a larger one, or "
            "smaller patches"
        )
    if config.mask_kind == "blocks" and min(grid) < 2:
        raise InvalidInput(f"no block fits into {rows}x{columns} patches: choose mask_kind random")
    by_patch = patches if config.mask_kind == "random" else 4 * _TRIES

    def masks(numbers: Tensor) -> Tensor:
        whether, ratio, drawn = numbers[:, 0], numbers[:, 1], numbers[:, 2:]
        ranks = whether.argsort().argsort()
        if evenly:
            count = int(len(numbers) * config.masked_crops)
            is_masked, share = ranks < count, (ranks + ratio) / max(count, 1)
        else:
            is_masked, share = whether < config.masked_crops, ratio
        low, high = config.mask_ratio
        counts = (patches * (low + (high - low) * share)).long().where(is_masked, 0)
        if config.mask_kind == "random":
            return drawn.argsort(1).argsort(1) < counts.unsqueeze(1)
        return block_masks(counts, grid, drawn.unflatten(1, (_TRIES, 4)), smallest_block).flatten(1)

    return TokenMasks(2 + by_patch, masks)


def block_masks(
    counts: Tensor, grid: tuple[int, int], numbers: Tensor, smallest_block: int
) -> Tensor:
    """Rectangles that hide at most `counts` patches of each crop (Bao et al. 2022, arXiv
    2106.08254, Alg. 1).

    counts [n], numbers in [0, 1) [n, tries, 4] -> bool [n, rows, columns]
    """
    masks = torch.zeros(len(counts), *grid, dtype=torch.bool)
    limit = math.log(_ASPECT_RATIO)
    for area, shape, down, across in (each.unbind(1) for each in numbers.unbind(1)):
        left = counts - masks.sum((1, 2))
        target = (smallest_block + (left - smallest_block) * area).clamp_min(0)
        aspect = torch.exp(limit - 2 * limit * shape)
        sizes = (target * aspect).sqrt().round(), (target / aspect).sqrt().round()
        rows, columns = (
            _covered(size, number, length)
            for size, number, length in zip(sizes, (down, across), grid, strict=True)
        )
        block = rows.unsqueeze(2) & columns.unsqueeze(1)
        hidden = (block & ~masks).sum((1, 2))
        fits = (sizes[0] < grid[0]) & (sizes[1] < grid[1]) & (hidden > 0) & (hidden <= left)
        masks |= block & fits.view(-1, 1, 1)
    return masks


def _covered(size: Tensor, number: Tensor, length: int) -> Tensor:
    """Of each block [n], which of `length` rows (or columns) it covers: bool [n, length]"""
    start = (number * (length - size + 1)).floor().unsqueeze(1)
    position = torch.arange(length)
    return (position >= start) & (position < start + size.unsqueeze(1))
