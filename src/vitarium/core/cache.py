"""Where vitarium keeps what it can make again: downloads, decoded images, measured speeds."""

import hashlib
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import entry_points
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

from vitarium.core import files
from vitarium.core.errors import CorruptFile
from vitarium.core.extras import EXTRAS
from vitarium.core.filenames import user_path

_NOWHERE = Path(os.devnull)  # nothing is found in it, and no folder can be made there


def cache_folder() -> Path:
    """$VITARIUM_CACHE, else `vitarium` below the user's cache folder; may not be there yet."""
    if folder := os.environ.get("VITARIUM_CACHE"):
        return user_path(folder)
    try:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    except RuntimeError:  # a user without a home
        caches = _NOWHERE
    return caches / "vitarium"


def zoo_cache(zoo: Path) -> Path:
    """Where the caches of a zoo lie that itself cannot be written; may not be there yet."""
    name = hashlib.sha256(os.fsencode(os.path.realpath(zoo))).hexdigest()[:16]
    return cache_folder() / "zoos" / name


def remembered(
    name: str,
    compute: Callable[[], Any],
    *,
    stamps: Callable[[], Any] = lambda: None,
    final: Callable[[Any, Any, Any], bool] = lambda value, before, after: before == after,
) -> Any:
    """What `compute` gives: JSON that follows from vitarium's own files, whose computing imports
    torch. Computed anew when a file has changed, and each time where torch has been imported, or
    with plug-ins from outside.

    Args:
        stamps: JSON of what else the value follows from.
        final: `final(value, before, after)` with the stamps before and after it was computed:
            whether it follows from those afterwards; else it is not remembered.
    """
    if not can_remember():
        return compute()
    path = cache_folder() / "remembered" / f"{name}.json"
    sources, before = source_stamps(), stamps()
    with suppress(OSError, CorruptFile, KeyError):
        stored = files.read_sealed(path)
        if stored["stamps"] == [sources, before]:
            return stored["value"]
    value, after = compute(), stamps()
    if final(value, before, after) and source_stamps() == sources:
        with suppress(OSError):  # where nothing can be kept, it is computed each time
            files.write_sealed(path, {"stamps": [sources, after], "value": value})
    return value


def can_remember() -> bool:
    """Whether an answer follows from vitarium's own files, and would spare the import of torch."""
    outside = os.environ.get("VITARIUM_PLUGINS") or entry_points(group="vitarium")
    return not outside and "torch" not in sys.modules


def source_stamps() -> list[list[Any]]:
    """Times and sizes of vitarium's files, and which libraries of its extras are missing."""
    stamps = [[module, find_spec(module) is None] for module in chain(*EXTRAS.values())]
    for file in sorted(Path(__file__).parents[1].rglob("*.*")):
        if file.suffix in (".py", ".yaml"):
            status = file.stat()
            stamps.append([str(file), status.st_mtime_ns, status.st_size])
    return stamps
