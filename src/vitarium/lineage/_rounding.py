"""What rounding leaves in weights: the precision that numbers have, and the errors to expect."""

import numpy as np
import torch
from torch import Tensor

MIN_VALUES = 8
"""Fewer different numbers are of a narrow type, or lie on even steps, by chance."""
_SAMPLE = 4096


def as_rows(tensor: Tensor) -> np.ndarray:
    """A tensor as float64 [rows, columns]; one of one axis is one row."""
    matrix = tensor.double().flatten(1) if tensor.ndim > 1 else tensor.double().reshape(1, -1)
    return matrix.numpy()


def narrowest_dtype(numbers: np.ndarray) -> torch.dtype:
    """The narrowest of bfloat16, float16 and float32 that holds all numbers, of any shape; float32
    of too few different ones."""
    sample = torch.tensor(numbers.flat[:_SAMPLE])  # most numbers are told by a few of them
    for dtype in (torch.bfloat16, torch.float16):
        if torch.equal(sample.to(dtype).double(), sample):
            entries = torch.from_numpy(numbers)
            if torch.equal(entries.to(dtype).double(), entries):
                return dtype if len(np.unique(numbers)) >= MIN_VALUES else torch.float32
    return torch.float32


def spacing(rows: np.ndarray, dtype: torch.dtype) -> np.ndarray:
    """Distance of each number to the next one of that dtype, [rows, columns]."""
    about = torch.finfo(dtype)
    magnitudes = np.maximum(np.abs(rows), about.tiny)  # below, steps are even
    return 2.0 ** (np.frexp(magnitudes)[1] - 1) * about.eps


def largest_by_chance(variances: np.ndarray) -> float:
    """About the largest singular value of a matrix of independent errors with these variances,
    [rows, columns]: the greatest norm of a row and that of a column together (Latala 2005, Some
    estimates of norms of random matrices)."""
    return float(variances.sum(0).max() ** 0.5 + variances.sum(1).max() ** 0.5)
