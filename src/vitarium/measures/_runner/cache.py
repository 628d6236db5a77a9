"""Cache of forward passes in the zoo's folder `cache`, which may be deleted at any time.

Where that cannot be written it is in the user's cache folder, or else in memory.
"""

import hashlib
import os
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from torch import Tensor

from vitarium.core import files
from vitarium.core.cache import zoo_cache
from vitarium.core.errors import CorruptFile, DamagedCache, FileFault
from vitarium.zoo import Checkpoint
from vitarium.zoo._format import packing


class Cache:
    """Tensors [*shape] by a key of text; a damaged file counts as missing."""

    def __init__(self, zoo: Path) -> None:
        self.folders = (zoo / "cache", zoo_cache(zoo) / "cache")
        self._in_memory: dict[str, Mapping[str, Tensor]] = {}

    def get(self, *key: str) -> Mapping[str, Tensor] | None:
        """Tensors [*shape] mapped from the file, each checked when it is read; None: not cached.

        A damaged file, or one of another key, is removed, with the warning DamagedCache.
        """
        for folder in self.folders:
            path = folder / _name(key)
            if not os.path.lexists(path) or not os.access(path.parent, os.R_OK | os.X_OK):
                continue
            try:
                cached = Checkpoint(path, _no_base)
                if cached.description.get("key") != list(key) or cached.base:
                    raise CorruptFile(path, "it is of something else")
                cached.check()
            except (CorruptFile, FileFault) as error:
                files.discard(path, root=folder.parent)
                note = f"{path} was damaged, and is computed anew ({error})"
                warnings.warn(DamagedCache(note), stacklevel=2)
            else:
                return cached
        return self._in_memory.get(_name(key))

    def put(self, tensors: Mapping[str, Tensor], *key: str) -> None:
        """Store tensors [*shape] in the first folder that can be written."""
        name = _name(key)
        for folder in self.folders:
            pieces, _ = packing.plain(tensors, {"key": list(key)})
            with suppress(OSError):
                if folder.is_file() or (folder / key[0]).is_file():
                    files.discard(folder, root=folder.parent)
                files.write(folder / name, pieces, root=folder.parent)
                return
        self._in_memory[name] = tensors


def _name(key: tuple[str, ...]) -> str:
    digest = hashlib.sha256("\n".join(key).encode()).hexdigest()[:24]
    return f"{key[0]}/{digest}.safetensors"


def _no_base(base: object) -> Checkpoint:
    raise AssertionError("what is cached is stored plain")
