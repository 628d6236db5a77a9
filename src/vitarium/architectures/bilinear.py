"""Bilinear reads of maps at points anywhere in an image."""

import torch
from torch import Tensor


def read_bilinear(tokens: Tensor, size: tuple[int, int], points: Tensor) -> Tensor:
    """A map at points: cells of `tokens`, row by row, around each point; zero outside of the map.

    tokens [batch, rows * columns, c], size (rows, columns), points [batch, n, 2] as (x, y), where
    (0, 0) and (1, 1) are the map's outer corners -> [batch, n, c], at least in the points' dtype.

    It is `grid_sample` (bilinear, zeros, align_corners=False) by ordinary operators: gradients are
    deterministic on GPUs, too, and can be taken twice, forward, and under vmap.
    """
    rows, columns = size
    x, y = points[..., 0] * columns - 0.5, points[..., 1] * rows - 0.5
    total: Tensor | None = None
    for row, row_weight in _around(y, rows):
        for column, column_weight in _around(x, columns):
            cell = row * columns + column
            index = torch.nan_to_num(cell).long().unsqueeze(-1)  # of NaN a weight is NaN enough
            values = tokens.gather(1, index.expand(-1, -1, tokens.shape[-1]))
            part = values * (row_weight * column_weight).unsqueeze(-1)
            total = part if total is None else total + part
    assert total is not None  # for mypy
    return total


def _around(positions: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    """Of an axis of `size` cells the two around each position [batch, n], before and after it, and
    their weights; outside of the axis the nearest cell, and 0."""
    before = positions.detach().floor()
    cells = []
    for cell in (before, before + 1):
        weight = 1 - (positions - cell).abs()
        cells.append((cell.clamp(0, size - 1), weight * ((cell >= 0) & (cell < size))))
    return cells


def cell_centers(size: tuple[int, int], like: Tensor) -> Tensor:
    """Centers of a map's cells as (x, y) in [0, 1], row by row: [rows * columns, 2], float32 or
    the dtype of `like` [...] where that is wider."""
    rows, columns = size
    dtype = torch.promote_types(like.dtype, torch.float32)
    y = (torch.arange(rows, device=like.device, dtype=dtype) + 0.5) / rows
    x = (torch.arange(columns, device=like.device, dtype=dtype) + 0.5) / columns
    grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([grid_x.flatten(), grid_y.flatten()], dim=-1)
