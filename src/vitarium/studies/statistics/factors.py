"""The generating factors of a stage's models, as labels that groups can be made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from vitarium.blueprint.plan import distinguishing_factors
from vitarium.core.printable import distinct, printable, shortened
from vitarium.formats.summary import text

MANY = 8
"""Numbers of which a factor has more different ones are put into three groups of equal size."""
MAX_LABEL = 100  # characters of a label; names and values in a foreign zoo may be of any length
PARENT = "parent"
SHOWN_ELSEWHERE = frozenset({"source", "name"})
_FIRST_FACTORS = ("objective", "data", "architecture", "initialization", "augmentation")


@dataclass(frozen=True)
class Factor:
    """A factor, and each model's value of it as text; both are printable."""

    name: str
    labels: pd.Series  # by model; of every model of the stage
    equivalent: tuple[str, ...] = ()  # factors that divide the models in the same way

    @property
    def values(self) -> list[str]:
        """Each value once: numbers by size, then texts by letter."""
        return sorted(set(self.labels), key=_order)

    @property
    def is_individual(self) -> bool:
        """Whether so many models have a value of their own that groups say nothing."""
        return len(self.values) > len(self.labels) / 2


def factors_of(
    models: Mapping[str, Mapping[str, Any]],
    parents: Mapping[str, str | None],
    parents_factors: Mapping[str, Mapping[str, Any]],
) -> list[Factor]:
    """The factors in which the models of a stage differ; then the parent, and those of parents.

    Factors that divide the models in the same way are one, the first, which names the others.
    The keys of `parents_factors` are the parents.
    """
    names = shorter_names(distinguishing_factors(list(map(dict, models.values()))))
    factors = [
        Factor(name, _labels(key, [models[id].get(key) for id in models], list(models)))
        for key, name in names.items()
    ]
    distinct_parents = list(dict.fromkeys(parent for parent in parents.values() if parent))
    if len(distinct_parents) > 1:
        labels = [(parents[id] or "none")[:8] for id in models]
        factors.append(Factor(PARENT, pd.Series(labels, index=list(models))))
        rows = [dict(parents_factors[p]) for p in distinct_parents if p in parents_factors]
        rank = {key: number for number, key in enumerate(_FIRST_FACTORS)}
        varying = distinguishing_factors(rows)
        for key in sorted(varying, key=lambda key: (rank.get(key, len(rank)), key)):
            values = [parents_factors.get(parents[id] or "", {}).get(key) for id in models]
            label = shortened(printable(key), MAX_LABEL)
            factors.append(Factor(f"parent's {label}", _labels(key, values, list(models))))
    return _merged([factor for factor in factors if factor.labels.nunique() > 1])


def is_seed(key: str) -> bool:
    """Whether a factor only numbers random draws."""
    return key.rpartition(".")[2].endswith("seed")


def parts_of(values: pd.Series, count: int = 4) -> pd.Series:
    """Numbers by model -> which quantile each is in, by its bounds; `none` without a value."""
    finite = values.dropna()
    edges = np.unique(np.quantile(finite, np.linspace(0, 1, count + 1)) if len(finite) else finite)
    if len(edges) < 2:
        return values.map(lambda value: "none" if pd.isna(value) else f"{value:.3g}")
    bins = np.clip(np.searchsorted(edges, values, side="left") - 1, 0, len(edges) - 2)
    names = [f"{low:.3g} to {high:.3g}" for low, high in pairwise(edges)]
    labels = ["none" if pd.isna(v) else names[i] for v, i in zip(values, bins, strict=True)]
    return pd.Series(labels, index=values.index)


def shorter_names(keys: Sequence[str]) -> dict[str, str]:
    """Dotted names -> their last part where that is enough."""
    keys = [key for key in keys if key not in SHOWN_ELSEWHERE]
    last = [key.rpartition(".")[2] for key in keys]
    names = {
        key: short if last.count(short) == 1 and short not in {"", "id", "stage", PARENT} else key
        for key, short in zip(keys, last, strict=True)
    }
    labels = distinct(names.values(), max_length=MAX_LABEL)
    return {key: labels[name] for key, name in names.items()}


def _labels(key: str, values: list[Any], ids: list[str]) -> pd.Series:
    """Values as texts; many different numbers as three ranges, but for seeds, which only count."""
    is_number = [isinstance(value, int | float) and not isinstance(value, bool) for value in values]
    if not is_seed(key) and all(is_number) and len(set(values)) > MANY:
        return parts_of(pd.Series(values, index=ids, dtype=float), 3)
    texts = ["none" if value is None else text(value) for value in values]
    labels = distinct(texts, empty="", max_length=MAX_LABEL)
    return pd.Series([labels[value] for value in texts], index=ids)


def _merged(factors: list[Factor]) -> list[Factor]:
    merged: dict[tuple[int, ...], Factor] = {}
    for factor in factors:
        pattern = tuple(pd.factorize(factor.labels)[0].tolist())
        if first := merged.get(pattern):
            factor = replace(first, equivalent=(*first.equivalent, factor.name))
        merged[pattern] = factor
    return list(merged.values())


def _order(label: str) -> tuple[float, str]:
    try:
        return (float(label.split(" to ")[0]), label)
    except ValueError:
        return (float("inf"), label)
