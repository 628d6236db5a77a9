"""What forward passes gave, kept in the zoo's folder `cache`, which may be deleted at any time.

Where that cannot be written - another user's zoo, a full disk - it lies in our own cache, and where
that cannot be written either, in memory.
"""

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from torch import Tensor

from vitarium.cache import zoo_cache
from vitarium.errors import CorruptFile
from vitarium.store import Checkpoint, files, packing


class Cache:
    """Tensors by what they are of; a damaged file counts as missing."""

    def __init__(self, zoo: Path) -> None:
        self.folders = (zoo / "cache", zoo_cache(zoo) / "cache")
        self._in_memory: dict[str, Mapping[str, Tensor]] = {}

    def get(self, *key: str) -> Mapping[str, Tensor] | None:
        """Tensors mapped from the file, each checked when it is read; None: not there."""
        name = _name(key)
        cached = (_read(folder / name) for folder in self.folders)
        return next((tensors for tensors in cached if tensors), self._in_memory.get(name))

    def put(self, tensors: Mapping[str, Tensor], *key: str) -> None:
        """Keep tensors in the first place that can be written."""
        name = _name(key)
        for folder in self.folders:
            pieces, _ = packing.plain(tensors, {"key": list(key)})
            with suppress(OSError):
                files.write(folder / name, pieces)
                return
        self._in_memory[name] = tensors


def _name(key: tuple[str, ...]) -> str:
    digest = hashlib.sha256("\n".join(key).encode()).hexdigest()[:24]
    return f"{key[0]}/{digest}.safetensors"


def _read(path: Path) -> Mapping[str, Tensor] | None:
    if not os.access(path, os.R_OK):
        return None
    try:
        checkpoint = Checkpoint(path, _no_base)
        checkpoint.check()
    except CorruptFile:
        with suppress(OSError):
            files.remove(path)
        return None
    return checkpoint


def _no_base(base: object) -> Checkpoint:
    raise AssertionError("what is cached is stored plain")
