"""What rows of a table of checkpoints say of images: mean, std, and names of the classes."""

import json
import math
from collections.abc import Mapping
from typing import Any

from vitarium.core.file_faults import resolved
from vitarium.core.printable import encodable
from vitarium.formats.importers._table_rows import Row

IMAGES: Mapping[str, str] = {"mean": "data.mean", "std": "data.std"}
"""Column -> the factor that it is."""
COLUMNS = (*IMAGES, "classes")
_MAX_BYTES = 10_000_000


def normalization(row: Row) -> dict[str, list[float]]:
    """Of the pixels in [0, 1], by factor; empty where the row does not say. Raises InvalidInput."""
    settings = {}
    for column, factor in IMAGES.items():
        if column not in row.cells:
            continue
        value = _json(row.cells[column])
        values = value if isinstance(value, list) and value else [value]
        if not all(type(v) in (int, float) and math.isfinite(v) for v in values):
            why = "it has to be a number, or a list of a number per channel: [0.5,0.5,0.5]"
            raise row.wrong(column, why)
        if column == "std" and min(values) <= 0:
            raise row.wrong(column, "a standard deviation is positive")
        settings[factor] = values
    if len(settings) == 1:
        (given,) = (column for column in IMAGES if IMAGES[column] in settings)
        raise row.wrong(given, "mean and std go together; give both or neither")
    return settings


def classes(row: Row, num_outputs: int) -> tuple[str, ...]:
    """Names of the outputs: a list as JSON, or a text file beside the weights with one in a line.

    Raises InvalidInput where they are not as many as the outputs, or the file is not there.
    """
    cell = row.cells.get("classes")
    if cell is None:
        return ()
    value = _json(cell)
    names = value if isinstance(value, list) else _lines(row, cell)
    if len(names) != num_outputs:
        raise row.wrong("classes", f"{len(names)} names, and the model has {num_outputs} outputs")
    return tuple(encodable(str(name)) for name in names)


def _lines(row: Row, path: str) -> list[str]:
    folder = row.folder
    file = folder / path
    try:
        if not resolved(file).is_relative_to(resolved(folder)):
            raise row.wrong("classes", f"'{path}' leads out of {folder}")
        if not file.is_file():
            raise row.wrong("classes", f"neither a list as JSON nor a file: {file}")
        if file.stat().st_size > _MAX_BYTES:
            raise row.wrong("classes", f"{file} is too large for a list of names")
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        if isinstance(error, UnicodeDecodeError):
            raise row.wrong("classes", f"{file} is no text in UTF-8") from None
        raise row.wrong("classes", f"{path!r} cannot be read") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def _json(cell: str) -> Any:
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        return None
