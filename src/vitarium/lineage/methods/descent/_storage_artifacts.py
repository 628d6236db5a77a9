"""What storage leaves in weights: zeros, few values, low precision. It tells which came first."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vitarium.evaluation.inputs import Weights
from vitarium.lineage._rounding import (
    MIN_VALUES,
    as_rows,
    largest_by_chance,
    narrowest_dtype,
    spacing,
)
from vitarium.lineage._statistics import squared_distances
from vitarium.lineage.base import Kind

FULL_BITS = 32  # `bits` of a model that has as many values as float32 gives it
MAX_LOW_RANK = 0.25  # share of the full rank up to which a difference has low rank
_NUM_MATRICES, _NUM_ROWS = 6, 16  # so many rows of so many of the largest matrices are looked at
_MAX_LEVELS = 512  # even steps are looked for up to so many of them in a row: eight bits, twice
_LEVEL_TOLERANCE = 0.02
"""Part of a step by which a number may be beside it, for float32's own rounding."""
_ROUNDING_RANGE = (0.8, 1.25)
"""Between so many times the expected rounding error a squared distance is one of rounding alone."""


class StorageArtifacts(NamedTuple):
    """Of K models, in their order."""

    zeros: np.ndarray  # share of entries that are zero, of a sample of rows, [K]
    bits: np.ndarray
    """Within a row there are at most 2^bits different values, or they lie on so many even steps,
    [K]; FULL_BITS where there is no sign of it."""
    dtypes: Sequence[torch.dtype]
    """The narrowest of bfloat16, float16 and float32 that holds all entries looked at."""
    rounding: np.ndarray
    """Expected squared l2 norm of what was lost to rounding, [K]: of even steps and of half
    precision step^2 / 12 for each entry; 0 where no numbers were lost."""


def storage_artifacts(models: Sequence[Weights], tensors: Sequence[str]) -> StorageArtifacts:
    """From some rows of the largest matrices; only models with few values are read in full."""
    zeros, bits, dtypes, rounding = [], [], [], []
    for model in models:
        matrices = [name for name in tensors if len(model.shapes[name]) > 1]
        largest = sorted(matrices, key=lambda name: -int(np.prod(model.shapes[name])))
        sample = []
        for name in largest[:_NUM_MATRICES]:
            count = model.shapes[name][0]
            start = max(0, (count - _NUM_ROWS) // 2)  # the middle, where a fused one has its keys
            sample.append(as_rows(model.rows(name, start, min(count, start + _NUM_ROWS))))
        numbers = np.concatenate([rows.ravel() for rows in sample]) if sample else np.zeros(0)
        zeros.append(np.mean(numbers == 0) if sample else 0.0)
        dtypes.append(narrowest_dtype(numbers))
        # the median of its matrices: some are often left as they were
        of_matrices = sorted(_bits(rows) for rows in sample if (rows != rows.flat[0]).any())
        bits.append(of_matrices[(len(of_matrices) - 1) // 2] if of_matrices else FULL_BITS)
        is_full = bits[-1] == FULL_BITS and dtypes[-1] == torch.float32
        rounding.append(0.0 if is_full else sum(_rounding(as_rows(model[n])) for n in tensors))
    return StorageArtifacts(np.array(zeros), np.array(bits), dtypes, np.array(rounding))


def compressed_from(artifacts: StorageArtifacts, gram: np.ndarray) -> np.ndarray:
    """Which models were derived from which by rounding or by setting entries to zero, bool [K, K],
    from inner products [K, K]. True at i, j: i cannot be earlier than j, and may be made of it, or
    of what j was made of with a finer rounding. Rounding shows in the distance, which is that of
    rounding alone; zeros in that i and j - i are at right angles."""
    distances = squared_distances(gram)
    expected = artifacts.rounding[:, None]
    smallest, largest = _ROUNDING_RANGE
    rounded = (expected > 0) & (distances > smallest * expected) & (distances < largest * expected)
    norms = gram.diagonal()[:, None]
    right_angles = np.abs(norms - gram) <= 1e-6 * distances + 1e-14 * norms
    fewer = artifacts.zeros[:, None] > artifacts.zeros
    compressed = rounded | (fewer & right_angles & (distances > 1e-12 * norms))
    return compressed & ~compressed.T  # two roundings of one model are as far from each other


def edge_kind(parent: Weights, child: Weights, tensors: Sequence[str]) -> Kind:
    """What became of the parent: "copy", "quantized" (every tensor that differs has few values or
    low precision, and numbers that were in an order still are), "pruned" (what is not zero is as it
    was), "low_rank" (matrices differ by a MAX_LOW_RANK of full rank at most, and those that are no
    matrices as they like), else "trained"."""
    pairs = [(parent[name].double(), child[name].double()) for name in tensors]
    changed = [(old, new) for old, new in pairs if not torch.equal(old, new)]
    if not changed:
        return "copy"
    if all(bool(((old == new) | (new == 0)).all()) for old, new in changed):
        return "pruned"
    if all(_is_quantized(as_rows(old), as_rows(new)) for old, new in changed):
        return "quantized"
    highest = 0
    for old, new in sorted((p for p in changed if p[0].ndim > 1), key=lambda p: p[0].numel()):
        rank = difference_rank(old, new)
        if rank > MAX_LOW_RANK * min(as_rows(old).shape):
            return "trained"
        highest = max(highest, rank)
    return "low_rank" if highest else "trained"  # without a rank all differences are rounding


def difference_rank(before: Tensor, after: Tensor) -> int:
    """Rank of what was added to a matrix [m, n], apart from the rounding of the sum to its numbers'
    type: singular values below twice the largest that such errors have are not counted."""
    old, new = as_rows(before), as_rows(after)
    values = np.linalg.svd(new - old, compute_uv=False)
    errors = spacing(new, narrowest_dtype(new)) ** 2 / 12
    return int((values > 2 * largest_by_chance(errors)).sum())


def _is_quantized(old: np.ndarray, new: np.ndarray) -> bool:
    """Whether `new` is `old` with fewer values; both [rows, columns]."""
    if (old == new).all():
        return True
    dtype = narrowest_dtype(new)
    if dtype != torch.float32 and (np.abs(new - old) <= spacing(new, dtype) * 0.501).all():
        return True
    if _bits(new) == FULL_BITS and len(np.unique(new)) > new.size / 3:
        return False
    order = np.argsort(old, axis=1, kind="stable")
    sorted_old, sorted_new = (np.take_along_axis(rows, order, axis=1) for rows in (old, new))
    falls = (np.diff(sorted_new, axis=1) < 0) & (np.diff(sorted_old, axis=1) > 0)
    return not falls.any()


def _bits(rows: np.ndarray) -> int:
    """`StorageArtifacts.bits` of one matrix [rows, columns]."""
    varied = [values for values in map(np.unique, rows) if len(values) > 1]
    if not varied:
        return FULL_BITS
    count = len(np.unique(rows))
    nonzero = np.count_nonzero(rows, axis=1)  # a pruned row has many zeros
    if count <= min(256, nonzero.sum() / 8):
        return _bits_for(count)
    steps = [(values, _even_step(values)) for values in varied]
    if all(step for _, step in steps):
        return _bits_for(max((values[-1] - values[0]) / step + 1 for values, step in steps))
    largest = max(map(len, varied))
    return _bits_for(largest) if largest <= nonzero.max() / 3 else FULL_BITS


def _bits_for(values: float) -> int:
    return max(1, int(np.ceil(np.log2(np.round(values)))))


def _even_step(values: np.ndarray) -> float:
    """Step of a row's different values [n], sorted; 0 where they lie on no even steps. The least
    difference of two is a step, or a few."""
    if len(values) < MIN_VALUES:
        return 0.0
    least, length = np.diff(values).min(), values[-1] - values[0]
    for divisor in range(1, 7):
        step = least / divisor
        if length / step > _MAX_LEVELS:
            return 0.0
        levels = (values - values[0]) / step
        if (np.abs(levels - np.round(levels)) < _LEVEL_TOLERANCE).all():
            return float(length / np.round(levels[-1]))
    return 0.0


def _rounding(rows: np.ndarray) -> float:
    """Expected squared l2 norm of the rounding error of a matrix [rows, columns]."""
    dtype = narrowest_dtype(rows)
    if dtype != torch.float32:
        return float((spacing(rows, dtype) ** 2).sum() / 12)
    step = _even_step(np.unique(rows))
    if step:
        return step**2 / 12 * rows.size
    return sum(_even_step(np.unique(row)) ** 2 / 12 * len(row) for row in rows)
