"""Which columns of a table of models are metrics of an epoch, and not factors."""

import re
from collections.abc import Collection, Iterable

from vitarium.blueprint import Recipe

_SPLITS = ("train", "val", "test")
_SET = re.compile(r"evaluate_on\.([a-z][a-z0-9]*)\.data")


def evaluation_sets(columns: Iterable[str]) -> set[str]:
    """Names of the sets on which a model was scored, by its factors: `evaluate_on.v2.data`."""
    return {match[1] for column in columns if (match := _SET.fullmatch(column))}


def is_metric(column: str, sets: Collection[str] = ()) -> bool:
    """Whether it is a number of a split, or of one of these evaluation sets, such as `v2_loss`."""
    images, separator, _ = column.partition("_")
    if not separator or "." in column or column in Recipe.model_fields:
        return False
    return images in _SPLITS or images in sets
