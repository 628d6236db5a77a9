"""The table of models as the page gets it: column by column, texts as codes of their levels."""

import json
import math
import re
import time
from collections.abc import Callable, Collection
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from vitarium.core import files
from vitarium.page.answers.models import Column, ColumnValues, Group, ModelsTable
from vitarium.zoo import Zoo, records
from vitarium.zoo._measured import measured_columns
from vitarium.zoo._model_files import model_stamps
from vitarium.zoo.listing import listing
from vitarium.zoo.query import Database

if TYPE_CHECKING:
    import pandas as pd

_FACTS = ("id", "stage", "parent", "operator", "ingredients", "status", "tags", "note")
_COUNTS = ("parent_epoch", "initial_epoch", "last_epoch")
_SCORES = ("before", "after", "score")
"""Of a listing, beside facts and factors."""
_TRAINED = "trained."
_STAMP_SECONDS = 10.0
"""For which conditions hold for the zoo as it was seen: longer than the page rests."""
_CHECKPOINTS = re.compile(r'\["[0-9a-f]{12}@\d+"(, "[0-9a-f]{12}@\d+")*\]')
"""As ingredients are written; a note or a name may begin like one."""


class TableCache:
    """The table of a zoo as JSON; made anew when a file of the zoo's models or numbers changes."""

    def __init__(
        self, zoo: Zoo, *, update_index: Callable[[Path], None] = lambda zoo: None
    ) -> None:
        """`update_index` may bring a zoo's index up to date before its table is made anew."""
        self._zoo = zoo
        self._update_index = update_index
        self._lock = Lock()
        self._stamp = ""
        self._content = b""
        self._seen = (-math.inf, "")
        self._query_lock = Lock()
        self._database: tuple[str, Database] | None = None

    def stamp(self, *, max_age: float = 0.0) -> str:
        """A text that is another one once a model or a measured number has changed; or what it was
        up to `max_age` seconds ago, as 10,000 models take a quarter of a second."""
        at, stamp = self._seen
        if time.monotonic() - at >= max_age:
            stamps = (model_stamps(self._zoo.path), records.stamps(self._zoo.path))
            stamp = files.checksum(repr(stamps).encode())
            self._seen = (time.monotonic(), stamp)
        return stamp

    def expire(self) -> None:
        """Something of the zoo was changed here, and must be seen at once."""
        self._seen = (-math.inf, "")

    def matching(self, where: str) -> list[str]:
        """Ids of the models that fulfill a condition, as it was seen up to ten seconds ago.

        The zoo's tables stay open from one condition to the next. Raises as `listing` does.
        """
        with self._query_lock:
            stamp = self.stamp(max_age=_STAMP_SECONDS)
            if self._database is None or self._database[0] != stamp:
                self._database = (stamp, Database(self._zoo.path))
            database = self._database[1]
            rows = listing(self._zoo.path, where=where, columns=["stage"], database=database).rows
        return [row["model"] for row in rows]

    def content(self) -> bytes:
        """Raises CorruptFile."""
        with self._lock:  # who asks meanwhile waits, and gets the same
            if (stamp := self.stamp()) != self._stamp:
                self._update_index(self._zoo.path)
                self._content = json.dumps(models_table(self._zoo), separators=(",", ":")).encode()
                self._stamp = stamp
            return self._content


def models_table(zoo: Zoo, models: Collection[str] | None = None) -> ModelsTable:
    """Every model with its factors, metrics and measured numbers, column by column.

    Rows are in the order of `vitarium ls`: parents before children, stage by stage. Columns have
    `name` (as SQL knows it), `label`, `group` ("fact", "factor", "score", "metric", "training",
    "measure") and `values`; texts as `levels` with `codes` into them, -1 where there is no value.
    `shown` are the columns of `vitarium ls`; `constants` have one value in all models.

    Args:
        models: only these, by their ids; None: all.

    Raises CorruptFile.
    """
    database = Database(zoo.path, timeout=None)
    frame = _frame(zoo, database)
    if models is not None:
        frame = frame[frame.index.isin(list(models))]
    constants, columns = dict[str, Any](), list[Column]()
    for name, column in frame.items():
        encoded = encode(column)
        if column.nunique(dropna=False) > 1:
            label = database.headings.get(name, name)
            group = group_of(name, database)
            columns.append({"name": name, "label": label, "group": group, **encoded})
        elif column.notna().any():
            first = encoded["levels"] if encoded["type"] == "text" else encoded["values"]
            constants[name] = first[0]
    varying = {column["name"] for column in columns}
    shown = [name for name in (*_FACTS, *database.headings, *_SCORES) if name in varying]
    ids = frame.index.tolist()
    return {"ids": ids, "columns": columns, "shown": shown, "constants": constants}


def encode(column: "pd.Series[Any]") -> ColumnValues:
    """Finite numbers as they are, None for others; all else as codes into levels, as they come."""
    import pandas as pd

    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        is_finite = column.notna() & ~column.isin([math.inf, -math.inf])
        return {"type": "number", "values": column.astype(object).where(is_finite, None).tolist()}
    codes, levels = pd.factorize(column)
    return {
        "type": "text",
        "levels": [_text(each) for each in levels.tolist()],
        "codes": codes.tolist(),
    }


def _frame(zoo: Zoo, database: Database) -> "pd.DataFrame":
    """All columns, by the models' ids in the order of a listing."""
    import pandas as pd

    scores = pd.DataFrame(listing(zoo.path, columns=_SCORES).rows, columns=["model", *_SCORES])
    frame = database.frame("SELECT * FROM models").set_index("id")
    frame = frame.drop(columns=[*_SCORES], errors="ignore")  # as the listing has them
    parts = [frame, scores.set_index("model")]
    if records.exist(zoo.path):
        taken = [*frame, *_SCORES]
        numbers = database.frame(measured_columns(database, taken).table)
        parts.append(numbers.set_index("model"))
    return pd.concat([part.reindex(scores["model"]) for part in parts], axis=1)


def group_of(name: str, database: Database) -> Group:
    """Of a column of the table of models, or of the table `models` in SQL."""
    if name in _SCORES:
        return "score"
    if name in _FACTS or name in _COUNTS:
        return "fact"
    if name in database.columns["epochs"] or name == "seconds":
        return "metric"
    if name not in database.columns["models"]:
        return "measure"
    return "training" if name.startswith(_TRAINED) else "factor"


def _text(value: Any) -> str:
    """As blueprints write it; checkpoints (`["ID@EPOCH", ...]`) one after the other."""
    if isinstance(value, str) and _CHECKPOINTS.fullmatch(value):
        return " ".join(json.loads(value))
    return value if isinstance(value, str) else json.dumps(value)
