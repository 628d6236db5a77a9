"""The version of an index: another one as soon as recipes have other factors."""

import hashlib
import re
from pathlib import Path

_FORM = 10
"""To be raised where an entry is to be read otherwise though it has the same factors."""
_FIELD = re.compile(rb"^    (\w+): ", re.MULTILINE)
_BLUEPRINT = Path(__file__).parents[1] / "blueprint"


def field_names(folder: Path = _BLUEPRINT) -> set[str]:
    """Names of the fields of specs, recipes and their parts, and of parameters beside them.

    By their sources: importing them would take longer than all else that reading an index does.
    """
    sources = [file.read_bytes() for file in sorted(folder.glob("*.py"))]
    return {name.decode() for source in sources for name in _FIELD.findall(source)}


def index_version(folder: Path = _BLUEPRINT) -> str:
    """The form, and a checksum of the factors' names: `10-3f2a9c01d2e4`."""
    names = "\n".join(sorted(field_names(folder)))
    return f"{_FORM}-{hashlib.sha256(names.encode()).hexdigest()[:12]}"
