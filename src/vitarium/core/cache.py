"""Where vitarium keeps what it can make again: downloads, decoded images, measured speeds."""

import hashlib
import os
from pathlib import Path

_NOWHERE = Path(os.devnull)  # nothing is found in it, and no folder can be made there


def cache_folder() -> Path:
    """$VITARIUM_CACHE, else `vitarium` below the user's cache folder; may not be there yet."""
    if folder := os.environ.get("VITARIUM_CACHE"):
        return Path(folder)
    try:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    except RuntimeError:  # a user without a home
        caches = _NOWHERE
    return caches / "vitarium"


def zoo_cache(zoo: Path) -> Path:
    """Where the caches of a zoo lie that itself cannot be written; may not be there yet."""
    name = hashlib.sha256(os.fsencode(os.path.realpath(zoo))).hexdigest()[:16]
    return cache_folder() / "zoos" / name
