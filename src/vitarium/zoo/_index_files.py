"""The index's files: what their tables have to look like, and whether they are as written.

Three files cannot be replaced at one blow. So `index/checksums.json` is written twice: before, when
it allows each file to be the old or the new one, and afterwards. A process that is killed in
between leaves files of two generations, which nobody mixes (see `index`), but none that is damaged.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vitarium.core import files
from vitarium.core.cache import zoo_cache
from vitarium.core.errors import CorruptFile, UnusablePath

NAMES = ("models", "epochs", "records")
CHECKSUMS = "checksums.json"
PATIENCE = 1.0
"""Seconds to wait for a process that is just replacing the files."""
VERSION = 2
METADATA = "vitarium"
"""Key of the index's own words in the files' metadata."""

_FACTS = {
    "id": "string",
    "stage": "string",
    "parent": "string",
    "parent_epoch": "int64",
    "operator": "string",
    "status": "string",
    "last_epoch": "int64",
}
REQUIRED: Mapping[str, Mapping[str, str]] = {
    "models": {**_FACTS, "seconds": "double", "_stamp": "string", "_entry": "string"},
    "epochs": {"model": "string", "epoch": "int64", "kept": "bool"},
    "records": {
        "model": "string",
        "epoch": "int64",
        "measure": "string",
        "settings": "string",
        "value": "double",
        "unit": "string",
    },
}
"""Columns that each table has in any case, with their types in Arrow's words."""
TYPES = {"string": "VARCHAR", "int64": "BIGINT", "double": "DOUBLE", "bool": "BOOLEAN"}
"""Every type that a column can have, and what DuckDB calls it."""


def homes(zoo: Path) -> tuple[Path, Path]:
    """Folders with a folder `index`: the zoo, and one in our cache where the zoo is read-only."""
    return zoo, zoo_cache(zoo)


def path_of(zoo: Path, name: str) -> Path:
    return zoo / "index" / f"{name}.parquet"


def exists(zoo: Path) -> bool:
    """Whether something lies where the index does, be it what it may."""
    folder = zoo / "index"
    try:
        return any(not path.name.startswith(".") for path in folder.iterdir())
    except OSError:  # a file, or a folder that cannot be read
        return os.path.lexists(folder)


def replace(zoo: Path, contents: Mapping[str, bytes]) -> None:
    """Write the files anew, in the order of `contents`. Raises OSError."""
    try:
        _replace(zoo, contents)
    except UnusablePath:  # something else is there
        files.discard(zoo / "index")
        _replace(zoo, contents)


def _replace(zoo: Path, contents: Mapping[str, bytes]) -> None:
    sums = {name: [files.checksum(content)] for name, content in contents.items()}
    before = _checksums(zoo) or {}
    old_and_new = {name: [*before.get(name, [None]), *new] for name, new in sums.items()}
    files.write_sealed(_sums_path(zoo), old_and_new, root=zoo)
    for name, content in contents.items():
        files.write(path_of(zoo, name), content, root=zoo)
    files.write_sealed(_sums_path(zoo), sums, root=zoo)


def damaged(zoo: Path) -> list[Path]:
    """Files that are not as they were written; without them, or their checksums, all are."""
    if (sums := _checksums(zoo)) is None:
        return [_sums_path(zoo)]
    paths = {name: path_of(zoo, name) for name in NAMES}
    return [path for name, path in paths.items() if _sum(path) not in sums.get(name, ())]


def _checksums(zoo: Path) -> dict[str, list[str | None]] | None:
    """What each file may be: several while they are replaced, None where it may be missing.

    None where there are no checksums, or none that can be read.
    """
    try:
        sums = files.read_sealed(_sums_path(zoo))
    except (OSError, CorruptFile):
        return None
    return {name: total if isinstance(total, list) else [total] for name, total in sums.items()}


def _sum(path: Path) -> str | None:
    try:
        return files.checksum(path.read_bytes())
    except OSError:
        return None


def _sums_path(zoo: Path) -> Path:
    return zoo / "index" / CHECKSUMS


def check_columns(name: str, types: Mapping[str, str], count: int) -> None:
    """Raises ValueError where a table's columns are not those of an index; `found`: types."""
    required = REQUIRED[name]
    if len({column.lower() for column in types}) != count:
        raise ValueError("columns of one name")
    if {column: types.get(column) for column in required} != dict(required):
        raise ValueError("columns are missing, or of other types")
    if not set(types.values()) <= set(TYPES):
        raise ValueError("columns of unknown types")


def check_headings(value: Any) -> None:
    """Raises ValueError for anything but names of names."""
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value.values()):
        raise ValueError("headings that are none")
