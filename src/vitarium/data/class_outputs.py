"""Which outputs of a model are the classes of a data set: matched by name, else by number."""

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from vitarium.core.printable import printable

_LISTED = 4


class ClassOutputs(NamedTuple):
    """Of a model, for a data set: which of its outputs are the classes."""

    numbers: tuple[int, ...] | None = None
    """Of the outputs, in the order of the classes; None: the outputs as they are."""
    by_number: bool = False
    """Matched by number alone: the names are not known on one side."""
    mismatch: str = ""
    """Why the outputs are not the classes, to be read after the model's name."""


def class_outputs(
    names: Sequence[str], num_outputs: int, classes: Sequence[str], data: str
) -> ClassOutputs:
    """Match a model's outputs to the classes of a data set.

    A class is the output of the same name, or else of a name that differs in nothing but case,
    spaces, hyphens and underscores, or how accents are encoded. By number only where either side
    has no names but numbers.

    Args:
        names: of the model's outputs; empty where they are not known.
        num_outputs: of the model.
        classes: names of the data set's classes.
        data: its name, for messages.
    """
    names, classes = tuple(map(str, names)), tuple(map(str, classes))
    if len(names) == num_outputs and names == classes:
        return ClassOutputs()
    named = len(names) == num_outputs and not _are_numbers(classes)
    if named and (not _are_numbers(names) or {*classes} <= {*names}):
        return _by_name(names, classes, data)
    if num_outputs == len(classes):
        return ClassOutputs(_positions_named(classes), by_number=True)
    number = f"the {len(classes)} classes of the data set '{data}'"
    return ClassOutputs(mismatch=f"its {num_outputs} outputs are not {number}")


def _by_name(names: Sequence[str], classes: Sequence[str], data: str) -> ClassOutputs:
    exact, loose = (_positions(map(normal, names)) for normal in (str, _normal))
    matched = [exact.get(name) or loose.get(_normal(name), []) for name in classes]
    missing = [name for name, at in zip(classes, matched, strict=True) if not at]
    if missing:
        lacks = f"its outputs are called {_listed(names)}"
        what = f"{len(missing)} of the {len(classes)} classes of the data set '{data}'"
        return ClassOutputs(mismatch=f"{lacks}; there is none for {what}: {_listed(missing)}")
    numbers = tuple(at[0] for at in matched)
    if unclear := [n for n, at in zip(classes, matched, strict=True) if len(at) > 1]:
        return ClassOutputs(mismatch=f"several of its outputs are called {_listed(unclear)}")
    if len(set(numbers)) < len(numbers):
        twice = [name for name, at in zip(classes, numbers, strict=True) if numbers.count(at) > 1]
        what = f"classes of the data set '{data}' are the same output"
        return ClassOutputs(mismatch=f"several {what}: {_listed(twice)}")
    return ClassOutputs(_unless_identical(numbers, len(names)))


def _positions(names: "map[str]") -> dict[str, list[int]]:
    positions: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        positions.setdefault(name, []).append(number)
    return positions


def _normal(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFC", name).casefold()).strip()


def _are_numbers(names: Sequence[str]) -> bool:
    """Whether names tell no more than the position: `3`, or transformers' `LABEL_3`."""
    return all(name in (str(at), f"LABEL_{at}") for at, name in enumerate(names))


def _positions_named(classes: Sequence[str]) -> tuple[int, ...] | None:
    """Of classes that are called by the numbers of outputs, as folders are; sorted as text, `10`
    stands before `2`. None: they are called otherwise, or stand in order."""
    numbers = {str(at): at for at in range(len(classes))}
    if not all(name in numbers for name in classes):
        return None
    return _unless_identical(tuple(numbers[name] for name in classes), len(classes))


def _unless_identical(numbers: tuple[int, ...], count: int) -> tuple[int, ...] | None:
    return None if numbers == tuple(range(count)) else numbers


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(f"'{printable(name)}'" for name in names[:_LISTED]) + more
