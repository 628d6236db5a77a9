"""The index's files, and whether they are as they were written.

Three files cannot be replaced at one blow. So `index/checksums.json` is written twice: before, when
it allows each file to be the old or the new one, and afterwards. A process that is killed in
between leaves files of two generations, which nobody mixes (see `index`), but none that is damaged.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from vitarium.core import files
from vitarium.core.cache import zoo_cache
from vitarium.core.errors import CorruptFile, UnusablePath

NAMES = ("models", "epochs", "records")
CHECKSUMS = "checksums.json"


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
    both = {name: [*before.get(name, [None]), *own] for name, own in sums.items()}
    files.write_sealed(_sums_path(zoo), both, root=zoo)
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
    return {name: own if isinstance(own, list) else [own] for name, own in sums.items()}


def _sum(path: Path) -> str | None:
    try:
        return files.checksum(path.read_bytes())
    except OSError:
        return None


def _sums_path(zoo: Path) -> Path:
    return zoo / "index" / CHECKSUMS
