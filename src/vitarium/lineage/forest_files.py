"""Stand-in for files of forests; the real file replaces it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vitarium.lineage.forest import Forest
from vitarium.lineage.scores import Scores


def write_json(
    forest: Forest,
    path: Path,
    truth: Mapping[str, tuple[str, ...]] | None = None,
    scores: Scores | None = None,
    info: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Write a forest as JSON."""
    path.write_text("{}")


def write_graphml(
    forest: Forest,
    path: Path,
    truth: Mapping[str, tuple[str, ...]] | None = None,
    info: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Write a forest as GraphML."""
    path.write_text("<graphml/>")
