"""Metrics of all epochs as the page gets them, for lines that follow models through training."""

from collections.abc import Collection

from vitarium.core.errors import UnknownName
from vitarium.page.answers.models import Epochs
from vitarium.page.models_table import encode
from vitarium.zoo import Zoo
from vitarium.zoo._sql_names import quote
from vitarium.zoo.query import Database

_KEYS = ("model", "epoch", "kept")
_NUMBERS = ("BIGINT", "DOUBLE")
"""Types of columns; metrics of imported models may be texts, which no line follows."""
_SPEED = ("seconds", "images_per_second")
_DIGITS = 6
"""Significant digits of what is drawn."""


def epochs_table(
    zoo: Zoo, models: Collection[str] | None = None, metrics: Collection[str] | None = None
) -> Epochs:
    """Metrics of every finished epoch, column by column, in the order of models and epochs.

    Args:
        models: only these, by their ids; None: all.
        metrics: only these; None: all but those of speed.

    Raises UnknownName for what is no metric, and CorruptFile.
    """
    database = Database(zoo.path, timeout=None)
    columns_of = database.columns["epochs"].items()
    known = [name for name, kind in columns_of if name not in _KEYS and kind in _NUMBERS]
    names = [name for name in known if name not in _SPEED] if metrics is None else list(metrics)
    for name in names:
        if name not in known:
            raise UnknownName("metric", name, known)
    columns = "".join(f", {quote(name)}" for name in names)
    frame = database.frame(f"SELECT model, epoch{columns} FROM epochs ORDER BY model, epoch")
    if models is not None:
        frame = frame[frame["model"].isin(list(models))]
    ids = encode(frame["model"])
    values = {name: encode(frame[name])["values"] for name in names}
    return {
        "ids": ids["levels"],
        "models": ids["codes"],
        "epochs": frame["epoch"].tolist(),
        "metrics": {name: [*map(_rounded, numbers)] for name, numbers in values.items()},
    }


def _rounded(number: float | None) -> float | None:
    return None if number is None else float(f"{number:.{_DIGITS}g}")
