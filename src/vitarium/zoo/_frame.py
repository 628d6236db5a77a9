"""The table of models that `Zoo.models` gives."""

from pathlib import Path
from typing import TYPE_CHECKING

from vitarium.zoo import _index as index
from vitarium.zoo import records
from vitarium.zoo._measured import measured_columns
from vitarium.zoo.listing import condition_text, listing
from vitarium.zoo.query import Database

if TYPE_CHECKING:
    import pandas as pd


def models_frame(zoo: Path, *, where: str, varying: bool, measured: bool) -> "pd.DataFrame":
    """See `Zoo.models`."""
    import pandas as pd

    rows = index.rows(zoo)
    if condition_text(where).strip():
        matching = {row["model"] for row in listing(zoo, where=where).rows}
        rows = [row for row in rows if row["id"] in matching]
    frame = pd.DataFrame(rows)
    if measured and len(frame) and records.exist(zoo):
        numbers = _measured(zoo, frame)
        frame = frame.merge(numbers, how="left", left_on="id", right_index=True)
    return frame[_varying(frame)] if varying and len(frame) else frame


def _measured(zoo: Path, frame: "pd.DataFrame") -> "pd.DataFrame":
    """A column for each measure, by model."""
    database = Database(zoo, timeout=None)
    numbers = database.frame(measured_columns(database, list(frame.columns)).table)
    return numbers.set_index("model")


def _varying(frame: "pd.DataFrame") -> list[str]:
    """The id, and the columns in which rows differ; lists are compared by what is in them."""
    return [
        name
        for name, column in frame.items()
        if name == "id" or column.map(repr, na_action="ignore").nunique(dropna=False) > 1
    ]
