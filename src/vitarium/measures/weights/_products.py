"""Inner products of all pairs of models' weights, in one pass over checkpoints on disk.

Models are read side by side, some rows of a tensor at a time: memory grows with their number alone.
"""

import math
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from torch import Tensor
from xxhash import xxh3_64_intdigest

from vitarium.core.errors import NotApplicable
from vitarium.core.progress import SILENT, Progress
from vitarium.evaluation.inputs import Weights, finite
from vitarium.evaluation.scope import Scope, in_scope
from vitarium.zoo._format.coding import RUN_BYTES

CHUNK_BYTES = 256_000_000
"""Bytes of weights multiplied at a time, or a run of every model where that is more: then each byte
is read and checked at most twice."""
MAX_BYTES = 1_024_000_000
"""Bytes that all threads hold together."""
_COLUMNS = 16_384
"""Numbers of a model that are multiplied at a time: in float64 they stay near the processor."""

Gram = np.ndarray
"""float64 [models, models]"""


class Summary(Protocol):
    """What else is wanted of every model's tensors while their numbers are at hand: S values."""

    def of(self, numbers: np.ndarray) -> Sequence[float]:
        """Of some of a tensor's numbers, float64 [n]; none are there only of an empty tensor."""

    def joined(self, parts: np.ndarray) -> np.ndarray:
        """Of all numbers, from what `of` gave of P parts of K models: [P, K, S] -> [K, S]."""


@dataclass(frozen=True)
class Products:
    """Of K models: inner products of every tensor, float64 [K, K], and who has the tensor.

    A product is NaN where one of the two does not have the tensor, where shapes differ, and where
    an entry is not finite.
    """

    models: Sequence[Weights]
    tensors: dict[str, Tensor]

    def parts(self, scope: Scope) -> Iterator[tuple[str, Tensor]]:
        """Products [K, K] of every tensor that is in scope of a model; and last "", their sum over
        the tensors of either model: NaN where one of them cannot be compared."""
        total = torch.zeros(len(self.models), len(self.models), dtype=torch.float64)
        of_models = [set(in_scope(model, scope)) for model in self.models]
        for name, gram in self.tensors.items():
            has = torch.tensor([name in names for names in of_models])
            if has.any():
                in_both, in_either = has[:, None] & has, has[:, None] | has
                part = gram.where(in_both, torch.nan)
                total += part.where(in_either, 0.0)
                yield name, part
        yield "", total


def products(models: Sequence[Weights]) -> Products:
    """Inner products of all pairs, of float32 numbers, summed in float64; remembered.

    So the squared distance of two models of norm S at distance d is right to about 1e-15 (S / d)^2,
    relatively. Equal tensors have exactly equal products: the distance of copies is exactly zero.
    """

    def compute() -> Products:
        names = dict.fromkeys(name for model in models for name in model.shapes)
        grams, _ = gathered(models, list(names))
        return Products(models, {name: torch.from_numpy(gram) for name, gram in grams.items()})

    return models[0].remember(("products", *(model.name for model in models)), compute)


def gathered(
    models: Sequence[Weights],
    tensors: Sequence[str],
    summary: Summary | None = None,
    progress: Progress = SILENT,
) -> tuple[Mapping[str, Gram], Mapping[str, np.ndarray]]:
    """Inner products of some tensors of K models, and a summary of S values, in the same pass.

    Returns by tensor, which a model need not have, products, float64 [K, K]; and summaries, float64
    [K, S], NaN where a model does not have it; without `summary` there are none. `progress` takes a
    step "reading weights" for each tensor.
    """
    count = len(models)
    grams = {name: np.full((count, count), np.nan) for name in tensors}
    summaries: dict[str, np.ndarray] = {}
    blocks = [block for name in tensors for block in _blocks(models, name)]
    number_of = {name: number for number, name in enumerate(tensors)}
    held = max(CHUNK_BYTES, count * RUN_BYTES)
    workers = max(1, min(os.cpu_count() or 1, MAX_BYTES // held))

    def work(block: _Block) -> tuple[Gram, np.ndarray | None]:
        read = []
        for model in block.models:
            tensor = model.rows(block.name, *block.rows) if block.rows else model[block.name]
            numbers: Any = tensor.float().reshape(-1).numpy()
            read.append((numbers, xxh3_64_intdigest(numbers)))
        return _of_block(read, summary)

    # a worker is a core: it reads and multiplies, and BLAS starts no threads of its own
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(workers) as pool:
        for block, (gram, part) in zip(blocks, pool.map(work, blocks), strict=True):
            name, cells = block.name, np.ix_(block.indices, block.indices)
            if block.is_first:
                progress.step("reading weights", number_of[name], len(tensors))
                grams[name][cells] = gram
            else:
                grams[name][cells] += gram
            if summary is not None and part is not None:
                of = summaries.setdefault(name, np.full((count, part.shape[1]), np.nan))
                before = [] if block.is_first else [of[block.indices]]
                of[block.indices] = summary.joined(np.stack([*before, part]))
    progress.step("reading weights", len(tensors), len(tensors))
    return grams, summaries


def not_comparable(scope: Scope, first: Weights, second: Weights) -> str | None:
    """Why two models' weights cannot be compared: the first tensor that does not fit, or is bad."""
    first_names, second_names = in_scope(first, scope), in_scope(second, scope)
    for name in (*first_names, *(name for name in second_names if name not in first_names)):
        if name not in second_names or name not in first_names:
            has, lacks = (first, second) if name in first_names else (second, first)
            return f"{has.name} has {name}, which {lacks.name} does not have"
        shapes = first.shapes[name], second.shapes[name]
        if shapes[0] != shapes[1]:
            return f"{name} is {shapes[0]} in {first.name} and {shapes[1]} in {second.name}"
    return _fault(scope, first) or _fault(scope, second)


def _fault(scope: Scope, model: Weights) -> str | None:
    """Which of a model's tensors has an entry that is not finite; looked for once."""

    def look() -> str | None:
        try:
            for name in in_scope(model, scope):
                finite(f"{model.name}: {name}", model[name])
        except NotApplicable as error:
            return str(error)
        return None

    return model.remember(("fault", scope), look)


class _Block(NamedTuple):
    """Some rows of a tensor, or all (None), of models that have it in the same shape."""

    name: str
    models: Sequence[Weights]
    indices: Sequence[int]
    rows: tuple[int, int] | None = None

    @property
    def is_first(self) -> bool:
        return self.rows is None or self.rows[0] == 0


def _blocks(models: Sequence[Weights], name: str) -> Iterator[_Block]:
    """What is read at a time; it depends on nothing but the models, so sums are always the same."""
    by_shape = defaultdict(list)
    for index, model in enumerate(models):
        if name in model.shapes:
            by_shape[model.shapes[name]].append(index)
    for shape, indices in by_shape.items():
        group = [models[index] for index in indices]
        size = 4 * math.prod(shape)
        if not shape or len(group) * size <= CHUNK_BYTES:
            yield _Block(name, group, indices)
            continue
        row = size // shape[0]
        rows = max(-(-RUN_BYTES // row), CHUNK_BYTES // (len(group) * row))
        for start in range(0, shape[0], rows):
            yield _Block(name, group, indices, (start, min(start + rows, shape[0])))


def _of_block(
    read: list[tuple[np.ndarray, int]], summary: Summary | None
) -> tuple[Gram, np.ndarray | None]:
    """Of the models' numbers; those with equal checksums are looked at once."""
    checksums = [checksum for _, checksum in read]
    different = list({checksum: numbers for numbers, checksum in read}.values())
    number_of = {checksum: number for number, checksum in enumerate(dict.fromkeys(checksums))}
    which = [number_of[checksum] for checksum in checksums]
    gram = np.zeros((len(different), len(different)))
    length = len(different[0])
    buffer = np.empty((len(different), min(_COLUMNS, length)))
    parts = []
    with np.errstate(invalid="ignore"):
        for start in range(0, max(length, 1), _COLUMNS):
            block = buffer[:, : length - start]
            part = []
            for row, numbers in zip(block, different, strict=True):
                row[:] = numbers[start : start + _COLUMNS]
                if summary is not None:  # while the row is still near the processor
                    part.append(summary.of(row))
            gram += block @ block.T  # NumPy computes half of it: a product with its own transpose
            parts.append(part)
        joined = None if summary is None else summary.joined(np.array(parts))[which]
    gram[~np.isfinite(gram)] = np.nan
    return gram[np.ix_(which, which)], joined
