"""What the index's tables have to look like, by which one of another version or origin is known."""

from collections.abc import Mapping
from typing import Any

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


def check_columns(name: str, found: Mapping[str, str], count: int) -> None:
    """Raises ValueError where a table's columns are not those of an index; `found`: types."""
    required = REQUIRED[name]
    if len({column.lower() for column in found}) != count:
        raise ValueError("columns of one name")
    if {column: found.get(column) for column in required} != dict(required):
        raise ValueError("columns are missing, or of other types")
    if not set(found.values()) <= set(TYPES):
        raise ValueError("columns of unknown types")


def check_headings(value: Any) -> None:
    """Raises ValueError for anything but names of names."""
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value.values()):
        raise ValueError("headings that are none")
