"""The rank of the change of a matrix, where rounding does not hide it; see `changes`."""

from typing import NamedTuple

import numpy as np
import torch

from vitarium.lineage._rounding import largest_by_chance, narrowest_dtype, spacing

MAX_LOW_RANK, MAX_LOW_SHARE = 128, 0.5
"""A change of more than this rank, or this share of the full one, is full."""
_COUNTED, _CLEAR = 2, 4  # times the largest singular value that rounding has by chance
_EXCESS = 1.5
"""What is left of a change of low rank has at most so many times the squared norm of rounding."""
_STEPS_OF_FLOAT32 = 4
"""In float32 programs compute the products and sums, too, each of which is rounded; what is kept in
fewer digits was computed in more."""


def change_rank(before: np.ndarray, after: np.ndarray) -> tuple[int | None, bool]:
    """Rank of what was added to a matrix [m, n], float64, and whether rounding does not hide it.

    None for one above MAX_LOW_RANK and MAX_LOW_SHARE of the full rank, and for one that is hidden.
    """
    if before.shape[0] < before.shape[1]:
        before, after = before.T, after.T
    limit = min(MAX_LOW_RANK, int(MAX_LOW_SHARE * before.shape[1]))
    # the rank of some columns is not above that of all, and takes a fraction of the time
    some = np.linspace(0, before.shape[1] - 1, limit + 1).astype(int)
    if _spectrum(before[:, some], after[:, some]).rank > limit:
        return None, True
    spectrum = _spectrum(before, after)
    if spectrum.rank > limit:
        return None, True
    return (spectrum.rank, True) if spectrum.is_clear else (None, False)


class _Spectrum(NamedTuple):
    """Of the change of a matrix."""

    values: np.ndarray  # singular values, the largest first
    by_chance: float
    """The largest that rounding may have."""
    rounding: float
    """Expected squared norm of rounding."""

    @property
    def rank(self) -> int:
        """How many values stand out of rounding."""
        return int((self.values > _COUNTED * self.by_chance).sum())

    @property
    def is_clear(self) -> bool:
        """Whether there are such values, and no others that rounding may hide."""
        rank, hidden = self.rank, float((self.values[self.rank :] ** 2).sum())
        stands_out = rank > 0 and bool(self.values[rank - 1] > _CLEAR * self.by_chance)
        return stands_out and hidden <= _EXCESS * self.rounding


def _spectrum(before: np.ndarray, after: np.ndarray) -> _Spectrum:
    """Of two models' matrices [m, n]."""
    variances = _variances(before) + _variances(after)
    values = np.linalg.svd(after - before, compute_uv=False)
    return _Spectrum(values, largest_by_chance(variances), float(variances.sum()))


def _variances(rows: np.ndarray) -> np.ndarray:
    """Of the rounding errors of a matrix's numbers, [rows, columns]."""
    dtype = narrowest_dtype(rows)
    steps = _STEPS_OF_FLOAT32 if dtype == torch.float32 else 1
    return (steps * spacing(rows, dtype)) ** 2 / 12
