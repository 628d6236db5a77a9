"""Columns of one type each, made of whatever values the models have."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

TEXT, WHOLE, NUMBER, TRUTH = pa.string(), pa.int64(), pa.float64(), pa.bool_()
_LARGEST = 2**63


def table(
    rows: Sequence[Mapping[str, Any]], fixed: Mapping[str, pa.DataType], keys: Iterable[str]
) -> pa.Table:
    """A column for each of the `fixed` (with its type) and of the other `keys`, in that order.

    A row without a key has no value (null) in its column. Names that differ in case alone, which
    are one name in SQL, get a number.
    """
    columns = {
        key: column([row.get(key) for row in rows], fixed.get(key))
        for key in dict.fromkeys([*fixed, *keys])
    }
    return pa.table(dict(zip(_told_apart(columns), columns.values(), strict=True)))


def column(values: list[Any], kind: pa.DataType | None = None) -> pa.Array:
    """Values as booleans, 64-bit integers, doubles or text: the narrowest that holds them all.

    What is no plain value (a list, a mapping, a very large integer) and what has to share a column
    with text becomes text: a string as it is, anything else as JSON.
    """
    kind = kind or _kind(values)
    if kind == TEXT:
        values = [None if value is None else text(value) for value in values]
    try:
        return pa.array(values, kind)
    except UnicodeEncodeError:  # half a surrogate pair: JSON can say it, UTF-8 cannot
        return pa.array([v and v.encode(errors="replace").decode() for v in values], kind)


def text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _kind(values: list[Any]) -> pa.DataType:
    kinds = {type(value) for value in values} - {type(None)}
    if kinds == {bool}:
        return TRUTH
    if kinds and kinds <= {int, float}:
        whole = [value for value in values if type(value) is int]
        if all(-_LARGEST <= value < _LARGEST for value in whole):
            return NUMBER if float in kinds else WHOLE
    return TEXT


def _told_apart(names: Iterable[str]) -> list[str]:
    """The names, with a number after one that SQL would take for an earlier one."""
    taken: dict[str, str] = {}
    for name in names:
        free, number = name, 1
        while free.lower() in taken:
            number += 1
            free = f"{name}_{number}"
        taken[free.lower()] = free
    return list(taken.values())
