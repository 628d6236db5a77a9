"""What is wrong with a folder that is taken for a zoo, and what may be meant."""

from pathlib import Path

from vitarium.core import files
from vitarium.core.errors import NotAZoo, did_you_mean
from vitarium.core.parameters import call

TARS = (".tar", ".tar.gz", ".tgz")
"""Endings of files that `archive` writes."""


def not_a_zoo(path: Path) -> NotAZoo:
    """The error for what has no zoo.json: an archive, a misspelled name, another folder."""
    if path.name.endswith(TARS) and path.is_file():
        return NotAZoo(f"{path} is not a zoo but an archive of one: unpack it with tar -xf {path}")
    if path.exists():
        fault = f"{path} is not a zoo (it has no zoo.json)"
    else:
        fault = f"{path} is not a zoo: there is no such folder"
        zoos = [file.parent.name for file in _listed(path.parent, "*/zoo.json")]
        if zoos and (meant := did_you_mean(path.name, zoos)):
            return NotAZoo(f"{fault}{meant}")
    return NotAZoo(f"{fault}; grow one: {call('grow', 'BLUEPRINT', zoo='DIR')}")


def _listed(folder: Path, pattern: str) -> list[Path]:
    try:
        return sorted(folder.glob(pattern)) if files.exists(folder) else []
    except OSError:  # it may not be read: then nothing is suggested
        return []
