"""What forward passes gave, kept in the zoo's folder `cache`, which may be deleted at any time."""

import hashlib
import os
import warnings
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from vitarium.errors import CorruptFile, DamagedCache
from vitarium.store import Checkpoint, files, packing


class Cache:
    """Tensors by what they are of; a damaged file counts as missing."""

    def __init__(self, zoo: Path) -> None:
        self.folder = zoo / "cache"

    def get(self, *key: str) -> Mapping[str, Tensor] | None:
        """Tensors mapped from the file, each checked when it is read; None: not there.

        What is damaged, or of something else, is removed, with the warning DamagedCache.
        """
        path = self._path(key)
        if not os.path.lexists(path):
            return None
        try:
            cached = Checkpoint(path, _no_base)
            if cached.description.get("key") != list(key) or cached.base:
                raise CorruptFile(path, "it is of something else")
            cached.check()
        except CorruptFile as error:
            files.discard(path, root=self.folder.parent)
            note = f"{path} was damaged, and is computed anew ({error.fault})"
            warnings.warn(DamagedCache(note), stacklevel=2)
            return None
        return cached

    def put(self, tensors: Mapping[str, Tensor], *key: str) -> None:
        """Raises DiskFull and LeadsOutside."""
        zoo = self.folder.parent
        pieces, _ = packing.plain(tensors, {"key": list(key)})
        if self.folder.is_file() or (self.folder / key[0]).is_file():
            files.discard(self.folder, root=zoo)
        files.write(self._path(key), pieces, root=zoo)

    def _path(self, key: tuple[str, ...]) -> Path:
        digest = hashlib.sha256("\n".join(key).encode()).hexdigest()[:24]
        return self.folder / key[0] / f"{digest}.safetensors"


def _no_base(base: object) -> Checkpoint:
    raise AssertionError("what is cached is stored plain")
