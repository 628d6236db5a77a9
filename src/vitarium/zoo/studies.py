"""What studies wrote into a zoo's folder `studies`: pages, and lineages that they recovered.

They are about the zoo as it was then, and nothing else depends on them. In a zoo from elsewhere
they may hold anything: nobody runs a page but a browser that gives it no rights.
"""

from collections.abc import Collection
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from vitarium.core import files
from vitarium.core.errors import UnknownName, UnusablePath
from vitarium.core.file_faults import resolved
from vitarium.core.filenames import file_name

if TYPE_CHECKING:
    from vitarium.zoo.zoo import Zoo

FOLDER = "studies"


def page_path(zoo: Path, study: str) -> Path:
    """Where the page of a study lies, if it was written."""
    return zoo / FOLDER / f"{study}.html"


def json_path(zoo: Path, study: str) -> Path:
    """Where that lies which a study exports as JSON: of `lineage`, the recovered forest."""
    return zoo / FOLDER / f"{study}.json"


def pages(zoo: Path) -> list[Path]:
    """The pages, in order of their names."""
    return [file for file in _regular_files(zoo) if file.suffix == ".html"]


def json_files(zoo: Path) -> list[Path]:
    """What studies exported as JSON, in order of their names."""
    return [file for file in _regular_files(zoo) if file.suffix == ".json"]


def lineages(zoo: Path) -> list[Path]:
    """Recovered lineages, files `lineage*.json`, in order of their names."""
    return [file for file in json_files(zoo) if file.name.startswith("lineage")]


def find_page(zoo: Path, name: str) -> Path:
    """The page of this name. Raises UnknownName."""
    return _find("study", name, pages(zoo))


def find_lineage(zoo: Path, name: str) -> Path:
    """The recovered lineage of this name. Raises UnknownName."""
    return _find("recovered lineage", name, lineages(zoo))


def stamp(zoo: Path) -> str:
    """A text that is another one once a page or a lineage has been written or removed."""
    entries = []
    for file in [*pages(zoo), *lineages(zoo)]:
        with suppress(FileNotFoundError):  # removed just now
            stat = file.stat()
            entries.append((file.name, stat.st_mtime_ns, stat.st_size))
    return files.checksum(repr(entries).encode())


def date(file: Path) -> str:
    """When a file was written, in UTC: `2026-03-01T12:00:00+00:00`."""
    return datetime.fromtimestamp(int(file.stat().st_mtime), UTC).isoformat()


def have_all(zoo: "Zoo", ids: Collection[str]) -> bool:
    """Whether these are all finished models of a zoo: what studies say is about no others."""
    return all(id in ids for id in zoo.ids() if zoo.folder(id).status == "finished")


def _find(kind: str, name: str, stored: list[Path]) -> Path:
    by_name = {file.stem: file for file in stored}
    if name not in by_name:
        raise UnknownName(kind, name, by_name)
    return by_name[name]


def _regular_files(zoo: Path) -> list[Path]:
    """Files with ordinary names that lie in the folder itself, whatever links there are."""
    if not (zoo / FOLDER).is_dir():
        return []
    folder = resolved(zoo) / FOLDER
    return [file for file in files.listed(zoo / FOLDER) if _is_inside(file, folder)]


def _is_inside(file: Path, folder: Path) -> bool:
    if file_name(file.name) != file.name or not file.is_file():
        return False
    try:
        return resolved(file).parent == folder
    except UnusablePath:
        return False
