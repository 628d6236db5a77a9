"""Vectors of checkpoints, computed one model at a time and kept in the zoo's cache."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from vitarium.core import files
from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.errors import NotApplicable, VitariumError
from vitarium.core.progress import SILENT, Progress
from vitarium.measures._runner.cache import Cache

_SHARD = 512
"""Vectors in a file: few files for a large zoo, little to write anew when it grows."""
Floats = NDArray[np.float32]


class Vector(NamedTuple):
    """A vector, and which others it can be compared with."""

    values: Floats
    """[dim]"""
    group: str
    """Vectors of the same group and length can be compared."""


@dataclass
class VectorSet:
    """Vectors of checkpoints, and why others have none."""

    vectors: dict[CheckpointRef, Vector] = field(default_factory=dict)
    refused: dict[CheckpointRef, str] = field(default_factory=dict)
    remaining: int = 0
    """Checkpoints that there was no time for."""


class VectorCache:
    """Vectors by the checksum of what they are of, in files of some hundred.

    Args:
        key: what else they follow from: the encoder, its settings, ...
    """

    def __init__(self, zoo: Path, *key: str) -> None:
        self._cache, self._key = Cache(zoo), ("vectors", *key)
        self._vectors: dict[str, Vector] = {}
        self.refused: dict[str, str] = {}
        """By name, why there is no vector; not kept in files."""
        self._names: list[str] = []
        while shard := self._cache.get(*self._key, str(len(self._names) // _SHARD)):
            lengths = shard["lengths"].tolist()
            pieces = shard["values"].split(lengths)
            names, groups = _texts(shard["names"]), _texts(shard["groups"])
            for name, group, piece in zip(names, groups, pieces, strict=True):
                self._vectors[name] = Vector(piece.numpy().copy(), group)
            self._names += names
            if len(names) < _SHARD:
                break
        self._stored = len(self._names)

    def get(self, name: str) -> Vector | None:
        return self._vectors.get(name)

    def add(self, name: str, vector: Vector) -> None:
        """Remember a vector; `name` and its group are texts of 16 hexadecimal digits."""
        if name not in self._vectors:
            self._names.append(name)
        self._vectors[name] = vector

    def store(self) -> None:
        """Write what was added since; where that is not possible, it is computed again."""
        for start in range(self._stored // _SHARD * _SHARD, len(self._names), _SHARD):
            names = self._names[start : start + _SHARD]
            vectors = [self._vectors[name] for name in names]
            tensors = {
                "names": _bytes(names),
                "groups": _bytes([vector.group for vector in vectors]),
                "lengths": torch.tensor([len(vector.values) for vector in vectors]),
                "values": torch.from_numpy(np.concatenate([v.values for v in vectors])),
            }
            self._cache.put(tensors, *self._key, str(start // _SHARD))
        self._stored = len(self._names)


def compute(
    refs: Iterable[CheckpointRef],
    cache: VectorCache,
    name: Callable[[CheckpointRef], str],
    vector: Callable[[CheckpointRef], Vector],
    *,
    store: bool = True,
    seconds: float | None = None,
    progress: Progress = SILENT,
) -> VectorSet:
    """The vector of every checkpoint, cached or computed.

    Args:
        name: of what a checkpoint's vector follows from: 16 hexadecimal digits.
        vector: computes one. A VitariumError is the reason why there is none.
        store: keep new vectors in the cache.
        seconds: after which no further one is computed, but one at least is; None: all are.
    """
    refs, result = list(refs), VectorSet()
    start, computed = monotonic(), 0
    for done, ref in enumerate(refs, 1):
        key = None
        try:
            key = name(ref)
            if (cached := cache.get(key)) is None and key not in cache.refused:
                if computed and seconds is not None and monotonic() - start > seconds:
                    result.remaining += 1
                    continue
                cached = vector(ref)
                cache.add(key, cached)
                computed += 1
                if store and computed % _SHARD == 0:
                    cache.store()
        except VitariumError as error:
            reason = str(error).removeprefix(f"{ref}: ").removeprefix(f"{ref.model}: ")
            if key and isinstance(error, NotApplicable):
                cache.refused[key] = reason
            result.refused[ref] = reason
        else:
            if cached is None:
                result.refused[ref] = cache.refused[key]
            else:
                result.vectors[ref] = cached
        progress.step("vectors", done, len(refs))
    if store and computed:
        cache.store()
    return result


def checksum(*parts: object) -> str:
    """16 hexadecimal digits of what has this text."""
    return files.checksum(repr(parts).encode())


def _bytes(texts: list[str]) -> torch.Tensor:
    """Texts of 16 hexadecimal digits -> uint8 [texts, 8]."""
    return torch.frombuffer(bytearray.fromhex("".join(texts)), dtype=torch.uint8).view(-1, 8)


def _texts(numbers: torch.Tensor) -> list[str]:
    """uint8 [texts, 8] -> texts of 16 hexadecimal digits."""
    digits = numbers.numpy().tobytes().hex()
    return [digits[start : start + 16] for start in range(0, len(digits), 16)]
