"""Tensors on disk: made once, then memory-mapped by every process; they can be deleted.

<cache>/<kind>/<name>-<hash>/        kind: `decoded` for images, `indexes` for those of shards
  about.json             whatever goes with the tensors, and a checksum of each; written last
  <tensor>.npy ...       all can be deleted at any time, and is made again when next needed
"""

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from vitarium.core import files
from vitarium.core.cache import cache_folder
from vitarium.core.errors import CorruptFile, DamagedCache
from vitarium.core.scratch import reserve

FORMAT = 1

Allocate = Callable[[str, tuple[int, ...], torch.dtype], Tensor]
"""Gives an empty tensor of that name, shape and type, to be filled."""


class CachedTensors(NamedTuple):
    tensors: Mapping[str, Tensor]
    about: Mapping[str, Any]


Kind = Literal["decoded", "indexes"]
_CALLED: Mapping[Kind, str] = {"decoded": "decoded images", "indexes": "indexes of shards"}


def from_cache(
    name: str,
    key: Any,
    fill: Callable[[Allocate], Mapping[str, Any]],
    kind: Kind = "decoded",
) -> CachedTensors:
    """The tensors that `fill` makes (it returns `about`), from the cache if they are there.

    `key` are plain values that decide the content. Of several processes one makes it, the others
    wait. What is damaged is made anew, and where the cache cannot be written everything stays in
    this process's memory; both with a warning.
    """
    text = json.dumps([FORMAT, name, key], sort_keys=True)
    folder = cache_folder() / kind / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_suffix(".lock"))
        with lock:
            return _open(folder, kind) or _make(folder, fill)
    except OSError as error:
        if cached := _open(folder, kind):  # by another user, whose cache this is
            return cached
        failed = f"{_CALLED[kind]} are not cached ({error.strerror or error})"
        warnings.warn(f"{failed}; name a folder for them in VITARIUM_CACHE", stacklevel=2)
        tensors: dict[str, Tensor] = {}

        def allocate(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
            return tensors.setdefault(name, torch.empty(shape, dtype=dtype))

        return CachedTensors(tensors, fill(allocate))


def _open(folder: Path, kind: Kind) -> CachedTensors | None:
    if not os.access(folder / "about.json", os.R_OK):
        return None
    try:
        written = files.read_sealed(folder / "about.json")
        for name, sha256 in written["tensors"].items():
            if files.digest(folder / f"{name}.npy") != sha256:
                raise ValueError(f"{name}.npy is not as it was written")
        tensors = {name: _map(folder, name) for name in written["tensors"]}
        return CachedTensors(tensors, written["about"])
    except (CorruptFile, OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        note = f"{_CALLED[kind]} in {folder} were damaged, and are made anew ({error})"
        warnings.warn(DamagedCache(note), stacklevel=3)
        files.discard(folder)
        return None


def _make(folder: Path, fill: Callable[[Allocate], Mapping[str, Any]]) -> CachedTensors:
    beside = folder.with_suffix(".tmp")
    files.discard(beside)
    beside.mkdir()
    arrays: dict[str, np.memmap] = {}

    def allocate(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        numpy_type = torch.empty((), dtype=dtype).numpy().dtype
        file = beside / f"{name}.npy"
        arrays[name] = np.lib.format.open_memmap(file, mode="w+", dtype=numpy_type, shape=shape)
        with file.open("rb+") as opened:  # a disk that is full later would end the process
            reserve(opened.fileno(), file.stat().st_size)
        return torch.from_numpy(arrays[name])

    try:
        about = fill(allocate)
        for array in arrays.values():
            array.flush()
        checksums = {name: files.digest(beside / f"{name}.npy") for name in arrays}
        files.write_sealed(beside / "about.json", {"about": dict(about), "tensors": checksums})
        files.discard(folder)
        beside.replace(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return CachedTensors({name: _map(folder, name) for name in arrays}, about)


def _map(folder: Path, name: str) -> Tensor:
    # "c": pages are shared by all processes, and what one of them writes stays its own
    return torch.from_numpy(np.load(folder / f"{name}.npy", mmap_mode="c"))
