"""Measured numbers as columns beside the models: one per measure, and per part where these are few.

A number counts after the model's last epoch, on test images (or on none, of weights), of the data
set that the model was trained for, and none that it was trained on. Of several settings the most
usual counts; all numbers are in the table `records`.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vitarium.zoo._sql_names import quote

if TYPE_CHECKING:
    from vitarium.zoo.query import Database

MAX_PARTS = 8
"""Parts of a measure from which on only the one of the model as such is a column."""
ACCURACY = "accuracy"
"""The measure that is what training scores as `test_accuracy`."""


@dataclass(frozen=True)
class MeasuredColumns:
    """Columns of measured numbers, and the SQL of a table with the models' ids in `model`."""

    names: dict[str, tuple[str, str]]
    """Of each column its measure and part, e.g. "accuracy/top5" -> ("accuracy", "top5")."""
    table: str

    def column(self, measure: str) -> str | None:
        """The column of a measure of models as such."""
        return next((name for name, key in self.names.items() if key == (measure, "")), None)


def measured_columns(database: "Database", taken: Collection[str]) -> MeasuredColumns:
    """Of a zoo's records; a column whose name is taken is called `measured.NAME`."""
    numbers = _numbers(database)
    rows = database.rows(f"SELECT DISTINCT measure, part FROM ({numbers}) ORDER BY ALL")[1]
    count = Counter(measure for measure, _ in rows)
    used, names = {name.lower() for name in taken}, {}
    for measure, part in rows:
        if part == "" or count[measure] <= MAX_PARTS:
            name = f"{measure}/{part}" if part else measure
            name = f"measured.{name}" if name.lower() in used else name
            names[name] = (measure, part)
    cells = "".join(
        f", max(CASE WHEN measure = {_text(measure)} AND part = {_text(part)} THEN value END) "
        f"AS {quote(name)}"
        for name, (measure, part) in names.items()
    )
    return MeasuredColumns(names, f"SELECT model{cells} FROM ({numbers}) GROUP BY model")


def _numbers(database: "Database") -> str:
    """SQL that gives at most one number for each model, measure and part."""
    own_data = ""
    if "data" in database.columns["models"]:
        own_data = "AND (coalesce(r.data, '') = '' OR m.data IS NULL OR r.data = m.data) "
    return (
        "SELECT r.model, r.measure, coalesce(r.part, '') AS part, r.value FROM records r "
        "JOIN models m ON m.id = r.model AND m.last_epoch = r.epoch JOIN "
        "(SELECT measure, mode(settings) AS settings FROM records GROUP BY measure) AS usual "
        "ON usual.measure = r.measure "
        "WHERE r.other IS NULL AND coalesce(r.split, '') IN ('', 'test') "
        f"AND NOT coalesce(r.trained_on, false) {own_data}"
        "QUALIFY row_number() OVER (PARTITION BY r.model, r.measure, coalesce(r.part, '') "
        "ORDER BY r.settings = usual.settings DESC, r.num_images DESC, r.settings) = 1"
    )


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
