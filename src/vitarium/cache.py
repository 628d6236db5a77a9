"""Where vitarium keeps what it can make again: downloads, decoded images, measured speeds."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """$VITARIUM_CACHE, else `vitarium` below the user's cache folder; may not be there yet."""
    if own := os.environ.get("VITARIUM_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "vitarium"
