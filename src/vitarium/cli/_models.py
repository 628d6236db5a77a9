"""How models are listed for people: in columns that tell them apart and fit the terminal."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from vitarium.cli._tables import print_rows
from vitarium.core.printable import shortened
from vitarium.core.terminal import print_line

SCORED = "accuracy on test images before and after training"
_MAX_LENGTH = 40  # characters in a cell of a listing
_ID_LENGTH = 8  # enough to name a model by
_SHOWN_INGREDIENTS = 2
_ALWAYS = ("model", "after")
_FIRST_TO_GO = ("note", "epochs", "before", "ingredients", "seed", "tags")
_LAST_TO_GO = ("stage", "name", "operator", "status", "score", "parent")

_USUAL = (("score", "accuracy"), ("status", "finished"))
"""What goes without saying where it is true of all models."""

Row = Mapping[str, Any]


def titled(title: str, rows: Sequence[Row], mark: str = "; ") -> str:
    """A title of a listing; of models with accuracies it says which these are."""
    scored = any(row.get(name) is not None for row in rows for name in ("before", "after"))
    return f"{title}{mark}{SCORED}" if scored else title


def print_models(rows: Sequence[Row], *, title: str = "", every_column: bool = False) -> None:
    """Print a listing (`vitarium.zoo.listing`).

    Columns in which all models are alike are named below; on a terminal that is too narrow, so are
    those that tell the least. With `every_column` none of these is left out.
    """
    cells = [for_people(row) for row in rows]
    if not cells:
        print_line(title)
        return
    columns = [name for name in cells[0] if any(row[name] not in (None, "") for row in cells)]
    constant = _constant(cells, columns) if len(cells) > 1 and not every_column else {}
    columns = [name for name in columns if name not in constant]
    spare = sorted(columns, key=lambda name: _worth(name, cells))
    print_rows(
        [{name: row[name] for name in columns} for row in cells],
        title=title,
        spare=[name for name in spare if name not in _ALWAYS],
        constant={name: v for name, v in constant.items() if (name, v) not in _USUAL},
        complete="--columns all shows all",
        every_column=every_column,
    )


def for_people(row: Row) -> dict[str, Any]:
    """A row with scores rounded, ids cut to digits that are enough, and long texts shortened."""
    cells = {key: _cell(value) for key, value in row.items()}
    for key in ("before", "after"):
        if row.get(key) is not None:
            cells[key] = round(row[key], 3)
    if row.get("score") == "k-NN accuracy":
        cells["score"] = "k-NN"
    for key in ("model", "parent"):
        if isinstance(row.get(key), str):
            cells[key] = row[key][:_ID_LENGTH]
    if isinstance(row.get("ingredients"), list):
        cells["ingredients"] = short_refs(row["ingredients"])
    return {_cell(key): value for key, value in cells.items()}


def short_refs(refs: Sequence[str], shown: int = _SHOWN_INGREDIENTS) -> str:
    """Checkpoints `ID@EPOCH`, with ids cut, and how many more there are."""
    listed = " ".join(ref[:_ID_LENGTH] + ref[12:] for ref in refs[:shown])
    more = len(refs) - shown
    return f"{listed} and {more} more" if more > 0 else listed


def _cell(value: Any) -> Any:
    return shortened(value, _MAX_LENGTH) if isinstance(value, str) else value


def _constant(rows: Sequence[Row], columns: Sequence[str]) -> dict[str, Any]:
    """Columns in which all rows are alike, and their value; those without a score count not."""
    values = {}
    for name in columns:
        cells = [row[name] for row in rows if not (name == "score" and row[name] is None)]
        if name not in _ALWAYS and all(cell == cells[0] for cell in cells):
            values[name] = cells[0]
    return values


def _worth(name: str, rows: Sequence[Row]) -> tuple[int, float]:
    """How much a column tells: factors by the entropy of their values, between fixed columns."""
    if name in _ALWAYS:
        return (3, 0)
    if name in _LAST_TO_GO:
        return (2, _LAST_TO_GO.index(name))
    if name in _FIRST_TO_GO or name.endswith("seed"):
        return (0, _FIRST_TO_GO.index(name) if name in _FIRST_TO_GO else len(_FIRST_TO_GO))
    shares = [count / len(rows) for count in Counter(str(row[name]) for row in rows).values()]
    return (1, -sum(share * math.log(share) for share in shares))
