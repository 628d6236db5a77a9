"""A zoo and what was measured of it, stage by stage, as tables that studies work on."""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from vitarium.core.printable import distinct
from vitarium.formats.summary import SCORES
from vitarium.formats.summary import population as described
from vitarium.studies.statistics.bootstrap import Numbers
from vitarium.studies.statistics.factors import MAX_LABEL, PARENT, Factor, factors_of
from vitarium.zoo import Zoo

if TYPE_CHECKING:
    from vitarium.formats.summary import Population as Described

ACCURACY = "accuracy"
OF_MODELS = (
    "accuracy",
    "generalization_gap",
    "loss",
    "calibration_error",
    "weight_norm",
    "distance_from_parent",
    "distance_from_start",
    "hessian_trace",
)
"""Measures of a model that have one number."""
OF_PAIRS = (
    "agreement",
    "error_consistency",
    "js_divergence",
    "ensemble_gain",
    "cka",
    "weight_l2",
    "weight_cosine",
)
STATISTICS = "layer_statistics"


@dataclass(frozen=True)
class Missing:
    """Models or pairs of a stage without a value of a measure, and why."""

    measure: str
    have: int
    of: int
    pairs: bool
    why: str


@dataclass(frozen=True)
class Stage:
    """The models of a stage, ordered by lineage: children of a parent together, then by factors."""

    name: str
    """Printable."""
    models: pd.DataFrame
    """By id: parent (None without) and `accuracy` (the last epoch's where it is not measured)."""
    score: str
    """Where the accuracy is from, e.g. `test accuracy`; empty where there is none."""
    factors: Sequence[Factor]
    epochs: pd.DataFrame
    """model, epoch, accuracy (a fraction)."""
    values: pd.DataFrame
    """By id: the measures of `OF_MODELS` that have values; NaN where there is none."""
    statistics: pd.DataFrame
    """By id: a column per statistic of a layer; empty where there are none."""
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
        return [factor for factor in self.factors if not factor.is_own]

    def factor(self, name: str) -> Factor | None:
        return next((factor for factor in self.factors if factor.name == name), None)

    @property
    def parents(self) -> list[str | None]:
        return [parent if isinstance(parent, str) else None for parent in self.models["parent"]]

    @property
    def has_parents(self) -> bool:
        return len({parent for parent in self.parents if parent}) > 0


@dataclass(frozen=True)
class Population:
    """The models of a zoo that a study is of."""

    stages: Sequence[Stage]
    """Those without parents first."""
    left_out: Mapping[str, int]
    """How many models are left out by their status, e.g. {"training": 2}."""

    def __len__(self) -> int:
        return sum(map(len, self.stages))

    @cached_property
    def accuracies(self) -> pd.Series:
        """By id, of all stages."""
        found = [stage.models[ACCURACY] for stage in self.stages]
        return pd.concat(found) if found else pd.Series(dtype=float)


def population(
    zoo: Zoo, ids: Collection[str], measured: pd.DataFrame, split: str = "test"
) -> Population:
    """The finished models among `ids`, with what `vitarium.measure` gave for them.

    Args:
        measured: a row per value: model, other, measure, part, value, refused.
        split: of the accuracies over the epochs.
    """
    known = described(zoo, set(ids))
    status = {model.row["id"]: str(model.row["status"]) for model in known.models}
    finished = {id for id, each in status.items() if each == "finished"}
    everyone = {model.row["id"]: model.factors for model in known.models}
    elsewhere = {str(model.row["parent"]) for model in known.models if model.row["parent"]}
    elsewhere = (elsewhere - everyone.keys()) & set(zoo.ids())
    everyone |= {m.row["id"]: m.factors for m in described(zoo, elsewhere).models}
    labels = distinct(known.stages, max_length=MAX_LABEL)
    stages = [
        replace(_stage(name, known, finished, everyone, measured, split), name=labels[name])
        for name in known.stages
        if any(model.row["id"] in finished for model in known.of(name))
    ]
    return Population(stages, Counter(s for s in status.values() if s != "finished"))


def _stage(
    name: str,
    known: "Described",
    finished: Collection[str],
    everyone: Mapping[str, Mapping[str, Any]],
    measured: pd.DataFrame,
    split: str,
) -> Stage:
    models = [model for model in known.of(name) if model.row["id"] in finished]
    parents = {model.row["id"]: model.row["parent"] for model in models}
    own = {model.row["id"]: everyone[model.row["id"]] for model in models}
    factors = factors_of(own, parents, everyone)
    ids = _by_lineage(parents, factors)
    metrics = [metric.replace("test", split) for metric in SCORES[:2]]
    curves = pd.DataFrame(
        [
            (model.row["id"], int(epoch["epoch"]), score)
            for model in models
            for epoch in model.epochs
            if (score := _score(epoch, metrics)) is not None
        ],
        columns=["model", "epoch", ACCURACY],
    )
    ours = measured[measured["model"].isin(ids)]
    values = _values(ours, ids)
    last = curves.groupby("model")[ACCURACY].last().reindex(ids)
    accuracy = values[ACCURACY].fillna(last) if ACCURACY in values else last
    table = pd.DataFrame(
        {"parent": [parents[id] for id in ids], ACCURACY: accuracy.astype(float)}, index=ids
    )
    ordered = [Factor(f.name, f.labels.reindex(ids), f.alike) for f in factors]
    return Stage(
        name,
        table,
        _named(models, metrics, split) if accuracy.notna().any() else "",
        ordered,
        curves,
        values.assign(**{ACCURACY: accuracy}) if accuracy.notna().any() else values,
        _statistics(ours, ids),
        _pairs(ours, ids),
        _missing(ours, ids),
    )


def _score(epoch: Mapping[str, Any], metrics: Sequence[str]) -> float | None:
    found = (epoch.get(metric) for metric in metrics)
    numbers = (float(v) for v in found if isinstance(v, int | float) and np.isfinite(v))
    return next(numbers, None)


def _named(models: Sequence[Any], metrics: Sequence[str], split: str) -> str:
    """What the accuracy of the stage's models is."""
    by_neighbours = sum(
        _score(model.row, metrics[:1]) is None and _score(model.row, metrics[1:]) is not None
        for model in models
    )
    if by_neighbours == len(models):
        return f"{split} accuracy (k-NN)"
    return f"{split} accuracy" + (" (some by k-NN)" if by_neighbours else "")


def _by_lineage(parents: Mapping[str, str | None], factors: Sequence[Factor]) -> list[str]:
    """Children of similar parents together, then of one parent, then by what varies."""
    ancestry = [f for f in factors if f.name.startswith(f"{PARENT}'s ")]
    order = [*ancestry, *(f for f in factors if f.name == PARENT)]
    order += [f for f in factors if f not in order]
    places = [(f.labels, {value: place for place, value in enumerate(f.values)}) for f in order]
    return sorted(parents, key=lambda id: (*(place[labels[id]] for labels, place in places), id))


def _values(measured: pd.DataFrame, ids: list[str]) -> pd.DataFrame:
    """A column per measure of a model; those without any value are left out."""
    single = measured[
        measured["measure"].isin(OF_MODELS) & measured["other"].isna() & (measured["part"] == "")
    ]
    table = single.pivot_table(index="model", columns="measure", values="value", aggfunc="last")
    there = [name for name in OF_MODELS if name in table and table[name].notna().any()]
    if {"distance_from_parent", "distance_from_start"} <= set(there):
        start, parent = table["distance_from_start"], table["distance_from_parent"]
        if np.allclose(start, parent, rtol=1e-3):  # where training starts from all of the parent
            there.remove("distance_from_start")
    return table.reindex(index=ids, columns=there).astype(float)


def _statistics(measured: pd.DataFrame, ids: list[str]) -> pd.DataFrame:
    """Statistics that all models have; heads of different shapes are not among them."""
    rows = measured[(measured["measure"] == STATISTICS) & (measured["part"] != "")]
    table = rows.pivot_table(index="model", columns="part", values="value", aggfunc="last")
    return table.reindex(ids).dropna(axis=0, how="all").dropna(axis=1).astype(float)


def _pairs(measured: pd.DataFrame, ids: list[str]) -> dict[str, Numbers]:
    """A symmetric matrix per measure; of one with a value per layer, the last layer's."""
    place = {id: number for number, id in enumerate(ids)}
    both = measured[measured["other"].isin(ids) & measured["value"].notna()]
    found = {}
    for name in OF_PAIRS:
        rows = both[both["measure"] == name]
        if not len(rows):
            continue
        parts = set(rows["part"])
        rows = rows[rows["part"] == ("" if "" in parts else max(parts, key=_natural))]
        matrix = np.full((len(ids), len(ids)), np.nan)
        one, other = rows["model"].map(place).to_numpy(), rows["other"].map(place).to_numpy()
        matrix[one, other] = matrix[other, one] = rows["value"].to_numpy(dtype=float)
        np.fill_diagonal(matrix, np.nan)
        found[name] = matrix
    return found


def _natural(part: str) -> list[tuple[int, str]]:
    """blocks.10 comes after blocks.9."""
    return [(int(piece) if piece.isdigit() else 0, piece) for piece in re.split(r"(\d+)", part)]


def _missing(measured: pd.DataFrame, ids: list[str]) -> list[Missing]:
    """Measures that lack values, with the most frequent reason."""
    found = []
    for name, rows in measured.groupby("measure", sort=False):
        pairs = bool(rows["other"].notna().any())
        keys = ["model", "other"] if pairs else ["model"]
        rows = rows[rows["other"].isin(ids)] if pairs else rows
        have = len(rows[rows["value"].notna()].drop_duplicates(keys))
        whole = len(ids) * (len(ids) - 1) // 2 if pairs else len(ids)
        if have < whole:
            reasons = Counter(why for why in rows["refused"] if why)
            why = reasons.most_common(1)[0][0] if reasons else ""
            found.append(Missing(str(name), have, whole, pairs, why))
    return found
