"""Computed answers in the zoo's folder `cache`, which may be deleted at any time."""

import hashlib
import json
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from vitarium.core import files
from vitarium.core.cache import zoo_cache
from vitarium.core.errors import CorruptFile, DamagedCache, FileFault, LeadsOutside

_FOLDER = "explorer"


class AnswerCache:
    """JSON by a key of texts; where a zoo cannot be written, in the user's cache folder.

    The key's last text is the version of what the answer is of: a newer answer takes the place of
    an older one.
    """

    def __init__(self, zoo: Path) -> None:
        self._folders = (zoo / "cache", zoo_cache(zoo) / "cache")

    def get(self, key: Sequence[str]) -> bytes | None:
        """None: not cached. A damaged file is removed, with the warning DamagedCache."""
        for folder in self._folders:
            path = folder / _name(key)
            try:
                cached = files.read_sealed(path)
                of = cached.get("key")
                if not isinstance(of, list) or of[:-1] != list(key[:-1]) or "answer" not in cached:
                    raise CorruptFile(path, "it is of something else")
                if of[-1] != key[-1]:
                    continue
                return json.dumps(cached["answer"], separators=(",", ":")).encode()
            except FileNotFoundError:
                continue
            except (CorruptFile, FileFault) as error:
                with suppress(LeadsOutside):
                    files.discard(path, root=folder.parent)
                note = f"{path} was damaged, and is computed anew ({error})"
                warnings.warn(DamagedCache(note), stacklevel=2)
        return None

    def put(self, key: Sequence[str], content: bytes) -> None:
        """In the first folder that can be written; where none can, it is computed each time."""
        value = {"key": list(key), "answer": json.loads(content)}
        for folder in self._folders:
            with suppress(OSError):
                files.write_sealed(folder / _name(key), value, root=folder.parent)
                return


def _name(key: Sequence[str]) -> str:
    digest = hashlib.sha256("\n".join(key[:-1]).encode()).hexdigest()[:24]
    return f"{_FOLDER}/{key[0]}-{digest}.json"
