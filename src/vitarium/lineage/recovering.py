"""Stand-in for the engine of lineage recovery; the real file replaces it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vitarium.lineage.forest import Forest
from vitarium.lineage.heap import Report, silent
from vitarium.lineage.scores import Scores
from vitarium.registry import Section
from vitarium.store import Zoo


@dataclass(frozen=True)
class Group:
    """Models of one shape."""

    models: Sequence[str]
    tensors: int
    shared: float


@dataclass(frozen=True)
class Recovered:
    """A forest, with what it is worth and what others say."""

    forest: Forest
    truth: Mapping[str, tuple[str, ...]] | None
    scores: Scores | None
    others: Mapping[str, tuple[Forest, Scores | None]]
    left_out: Mapping[str, str]
    groups: Sequence[Group]
    info: Mapping[str, Mapping[str, Any]]


def recover(
    source: Zoo | str | Path,
    method: str | Section = "descent",
    *,
    trees: int | None = None,
    compare: Sequence[str] = (),
    truth: bool | None = None,
    where: str = "",
    epochs: Literal["last", "all"] = "last",
    report: Report = silent,
    **settings: Any,
) -> Recovered:
    """Recover the lineage of a zoo or of a folder of files."""
    raise NotImplementedError
