"""Models that were imported have a name, too; commands take ids, which are short and unique."""

import re
from contextlib import suppress
from pathlib import Path

from vitarium.core.errors import UnknownName, VitariumError
from vitarium.core.printable import brief

_SHOWN = 3
_BEGINNING_OF_ID = re.compile(r"[0-9a-f]{0,12}")


def named_in(zoo: Path, name: str) -> UnknownName | None:
    """The error for a model that is asked for by its name, with the id; None if none has it."""
    if _BEGINNING_OF_ID.fullmatch(name):
        return None
    from vitarium.zoo import _index as index

    ids: list[str] = []
    with suppress(VitariumError):  # what is wrong with other models does not matter here
        ids = [row["id"] for row in index.rows(zoo) if row.get("name") == name]
    if not ids:
        return None
    error = UnknownName("model", name, ids)
    more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
    is_called = f"it is the name of {', '.join(ids[:_SHOWN])}{more}"
    error.args = (f"unknown model {brief(name)}: {is_called}; a model is given by its id",)
    return error
