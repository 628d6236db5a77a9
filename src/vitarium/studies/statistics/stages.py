"""A zoo and its measurements, stage by stage, as tables that studies work on."""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd

from vitarium.core.numerals import is_number
from vitarium.core.printable import distinct
from vitarium.core.registry import get, plugins
from vitarium.formats.summary import SCORES, Model, population
from vitarium.studies.statistics.bootstrap import Numbers
from vitarium.studies.statistics.factors import MAX_LABEL, PARENT, Factor, factors_of
from vitarium.zoo import Zoo

ACCURACY, STATISTICS = "accuracy", "layer_statistics"
_BY_NEEDS = ("predictions", "features", "weights", "model")


def shown_measures(of: Literal["model", "pair"]) -> list[str]:
    """Names of the measures that are registered with `studies=True`, the accuracy first.

    Those of models have one number per model; the statistics of layers are not among them.
    """
    order = [
        (name != ACCURACY, _BY_NEEDS.index(plugin.facts["needs"]), name)
        for name, plugin in plugins("measure").items()
        if plugin.facts["studies"] and plugin.facts["of"] == of and name != STATISTICS
    ]
    return [name for *_, name in sorted(order)]


def heat_mapped() -> list[str]:
    """Names of the measures of pairs that are drawn as a matrix."""
    return [name for name in shown_measures("pair") if get("measure", name).facts["heat_map"]]


def is_distance(measure: str) -> bool:
    """Whether a measure is small for models that are alike."""
    return get("measure", measure).facts["as_distance"] in ("identity", "square")


COLUMNS = ["model", "epoch", "other", "other_epoch", "measure", "part", "value", "unit", "refused"]
"""Of a table of values, as `vitarium.measure` gives it."""


@dataclass(frozen=True)
class Missing:
    """Models or pairs of a stage without a value of a measure, and why."""

    measure: str
    count: int
    total: int
    pairs: bool
    why: str


@dataclass(frozen=True)
class Stage:
    """The models of a stage, ordered by lineage: children of a parent together, then by factors."""

    name: str  # printable
    models: pd.DataFrame
    """By id: parent (None without) and `accuracy` (the last epoch's where it is not measured)."""
    score: str  # where the accuracy is from, e.g. `test accuracy`; empty where there is none
    factors: Sequence[Factor]
    epochs: pd.DataFrame  # model, epoch, accuracy (a fraction)
    values: pd.DataFrame  # by id: the measures of models that have values; NaN where one has none
    statistics: pd.DataFrame  # by id: a column per statistic of a layer; empty where there are none
    pairs: Mapping[str, Numbers]
    """[models, models] in the order of `models`; NaN where there is none, and on the diagonal."""
    missing: Sequence[Missing] = ()

    def __len__(self) -> int:
        return len(self.models)

    @property
    def ids(self) -> list[str]:
        return list(self.models.index)

    @cached_property
    def groups(self) -> list[Factor]:
        """Those of the factors whose values several models share."""
        return [factor for factor in self.factors if not factor.is_individual]

    @property
    def parents(self) -> list[str | None]:
        return [parent if isinstance(parent, str) else None for parent in self.models["parent"]]


@dataclass(frozen=True)
class Stages:
    """The finished models of a zoo, by stage."""

    stages: Sequence[Stage]  # those without parents first
    left_out: Mapping[str, int]
    """How many models are left out by their status, e.g. {"training": 2}."""

    def __len__(self) -> int:
        return sum(map(len, self.stages))

    @cached_property
    def accuracies(self) -> pd.Series:
        """By id, of all stages."""
        columns = [stage.models[ACCURACY] for stage in self.stages]
        return pd.concat(columns) if columns else pd.Series(dtype=float)

    @property
    def parents(self) -> dict[str, str | None]:
        """By id, of all stages."""
        return {id: p for s in self.stages for id, p in zip(s.ids, s.parents, strict=True)}


def read_stages(
    zoo: Zoo, ids: Collection[str], measured: pd.DataFrame | None = None, split: str = "test"
) -> Stages:
    """The finished models among `ids`, with the values that `vitarium.measure` gave for them.

    Args:
        measured: a row per value: model, other, measure, part, value, refused.
        split: of the accuracies over the epochs.
    """
    measured = pd.DataFrame(columns=COLUMNS) if measured is None else measured
    summary = population(zoo, set(ids))
    factors = {model.row["id"]: model.factors for model in summary.models}
    absent = {str(model.row["parent"]) for model in summary.models if model.row["parent"]}
    absent = (absent - factors.keys()) & set(zoo.ids())
    factors |= {model.row["id"]: model.factors for model in population(zoo, absent).models}
    labels = distinct(summary.stages, max_length=MAX_LABEL)
    stages = []
    for name in summary.stages:
        if models := [m for m in summary.of(name) if m.row["status"] == "finished"]:
            stages.append(_stage(labels[name], models, factors, measured, split))
    unfinished = (str(model.row["status"]) for model in summary.models)
    return Stages(stages, Counter(status for status in unfinished if status != "finished"))


def _stage(
    name: str,
    models: Sequence[Model],
    all_factors: Mapping[str, Mapping[str, Any]],
    measured: pd.DataFrame,
    split: str,
) -> Stage:
    parents = {model.row["id"]: model.row["parent"] for model in models}
    factors = factors_of({id: all_factors[id] for id in parents}, parents, all_factors)
    ids = _by_lineage(parents, factors)
    measured = measured[measured["model"].isin(ids)]
    values = _values(measured, ids)
    has_measured = ACCURACY in values and bool(values[ACCURACY].notna().any())
    metric, score = _score(models, split, has_measured=has_measured)
    epochs = [
        (model.row["id"], int(epoch["epoch"]), _number(epoch.get(metric)))
        for model in models
        for epoch in model.epochs
    ]
    curves = pd.DataFrame(epochs, columns=["model", "epoch", ACCURACY]).dropna()
    last = curves.groupby("model")[ACCURACY].last().reindex(ids).astype(float)
    accuracy = (values[ACCURACY].fillna(last) if ACCURACY in values else last).astype(float)
    if accuracy.notna().any():
        values = values.assign(**{ACCURACY: accuracy})
    else:
        score = ""
    return Stage(
        name,
        pd.DataFrame({"parent": [parents[id] for id in ids], ACCURACY: accuracy}, index=ids),
        score,
        [replace(factor, labels=factor.labels.reindex(ids)) for factor in factors],
        curves,
        values,
        _statistics(measured, ids),
        _pairs(measured, ids),
        _missing(measured, ids),
    )


def _score(models: Sequence[Model], split: str, *, has_measured: bool) -> tuple[str, str]:
    """The metric that is a stage's accuracy, and what it is called.

    Accuracies and those by k-NN say different things: where a stage has both, the latter are left
    out.
    """
    direct, by_neighbors = (metric.replace("test", split) for metric in SCORES[:2])
    has_direct = [_number(model.row.get(direct)) is not None for model in models]
    only_neighbors = [_number(model.row.get(by_neighbors)) is not None for model in models]
    count = sum(k and not d for d, k in zip(has_direct, only_neighbors, strict=True))
    if not count:
        return direct, f"{split} accuracy"
    if not any(has_direct) and not has_measured:
        return by_neighbors, f"{split} accuracy (k-NN)"
    many = "that of 1 model" if count == 1 else f"those of {count} models"
    return direct, f"{split} accuracy (without {many} by k-NN)"


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and np.isfinite(value) else None


def _by_lineage(parents: Mapping[str, str | None], factors: Sequence[Factor]) -> list[str]:
    """Children of similar parents together, then of one parent, then by what varies."""
    ancestry = [f for f in factors if f.name.startswith(f"{PARENT}'s ")]
    order = [*ancestry, *(f for f in factors if f.name == PARENT)]
    order += [f for f in factors if f not in order]
    ranks = [(f.labels, {value: rank for rank, value in enumerate(f.values)}) for f in order]
    return sorted(parents, key=lambda id: (*(rank[labels[id]] for labels, rank in ranks), id))


def _values(measured: pd.DataFrame, ids: list[str]) -> pd.DataFrame:
    """A column per measure of a model; those without any value are left out."""
    names = shown_measures("model")
    single = measured[
        measured["measure"].isin(names) & measured["other"].isna() & (measured["part"] == "")
    ]
    table = single.pivot_table(index="model", columns="measure", values="value", aggfunc="last")
    names = [name for name in names if name in table and table[name].notna().any()]
    if {"distance_from_parent", "distance_from_start"} <= set(names):
        start, parent = table["distance_from_start"], table["distance_from_parent"]
        if np.allclose(start, parent, rtol=1e-3):  # where training starts from all of the parent
            names.remove("distance_from_start")
    return table.reindex(index=ids, columns=names).astype(float)


def _statistics(measured: pd.DataFrame, ids: list[str]) -> pd.DataFrame:
    """Statistics that all models have; heads of different shapes are not among them."""
    rows = measured[(measured["measure"] == STATISTICS) & (measured["part"] != "")]
    table = rows.pivot_table(index="model", columns="part", values="value", aggfunc="last")
    return table.reindex(ids).dropna(axis=0, how="all").dropna(axis=1).astype(float)


def _pairs(measured: pd.DataFrame, ids: list[str]) -> dict[str, Numbers]:
    """A symmetric matrix per measure; of one with a value per layer, the last layer's."""

    def natural(part: str) -> list[tuple[int, str]]:
        """blocks.10 comes after blocks.9."""
        pieces = re.split(r"(\d+)", part)
        return [(int(piece) if is_number(piece) else 0, piece) for piece in pieces]

    index = {id: number for number, id in enumerate(ids)}
    of_pairs = measured[measured["other"].isin(ids) & measured["value"].notna()]
    matrices = {}
    for name in shown_measures("pair"):
        rows = of_pairs[of_pairs["measure"] == name]
        if not len(rows):
            continue
        parts = set(rows["part"])
        rows = rows[rows["part"] == ("" if "" in parts else max(parts, key=natural))]
        matrix = np.full((len(ids), len(ids)), np.nan)
        i, j = rows["model"].map(index).to_numpy(), rows["other"].map(index).to_numpy()
        matrix[i, j] = matrix[j, i] = rows["value"].to_numpy(dtype=float)
        np.fill_diagonal(matrix, np.nan)
        matrices[name] = matrix
    return matrices


def _missing(measured: pd.DataFrame, ids: list[str]) -> list[Missing]:
    """Measures that lack values, with the most frequent reason."""
    missing = []
    for name, rows in measured.groupby("measure", sort=False):
        pairs = bool(rows["other"].notna().any())
        keys = ["model", "other"] if pairs else ["model"]
        rows = rows[rows["other"].isin(ids)] if pairs else rows
        count = len(rows[rows["value"].notna()].drop_duplicates(keys))
        total = len(ids) * (len(ids) - 1) // 2 if pairs else len(ids)
        if count < total:
            reasons = Counter(why for why in rows["refused"] if why)
            why = reasons.most_common(1)[0][0] if reasons else ""
            missing.append(Missing(str(name), count, total, pairs, why))
    return missing
