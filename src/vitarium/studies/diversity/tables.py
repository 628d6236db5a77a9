"""A stage's tables: what is known of its models, and what factors explain."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from vitarium.studies.diversity.measured import Unavailable
from vitarium.studies.report.tables import Table
from vitarium.studies.report.text import (
    DASH,
    Columns,
    Quantity,
    Spread,
    Unit,
    limits_of,
    title,
    unit_of,
)
from vitarium.studies.report.texts import Texts
from vitarium.studies.statistics.analysis import Analysis, pairs_sharing
from vitarium.studies.statistics.bootstrap import Bootstrap
from vitarium.studies.statistics.factors import MANY
from vitarium.studies.statistics.stages import Stage, Stages
from vitarium.studies.statistics.variance import Mixed

texts = Texts("diversity", "tables")


def stages(population: Stages) -> Table:
    """A row per stage: models, accuracy, and the factors with their values."""
    rows, names = list[dict[str, Any]](), ("lowest accuracy", "median", "highest")
    for stage in population.stages:
        quantiles = stage.models["accuracy"].dropna().agg(["min", "median", "max"])
        row = {"stage": stage.name, "models": len(stage)}
        row |= dict(zip(names, quantiles, strict=True))
        factors = []
        for factor in stage.factors:
            values = factor.values
            text = ", ".join(values) if len(values) <= MANY else f"{len(values)} values"
            also = f" (and with it {', '.join(factor.equivalent)})" if factor.equivalent else ""
            factors.append(f"{factor.name}: {text}{also}")
        rows.append({**row, "factors that vary": "; ".join(factors) or DASH})
    units = dict.fromkeys(names, "fraction")
    return texts.table("stages", rows, units=units, wrap=True)


def distributions(stage: Stage) -> Table:
    """Mean and standard deviation of each measure, for each value of each factor."""
    groups = [("all", stage.values)]
    for factor in stage.groups:
        for value in factor.values:
            ids = factor.labels[factor.labels == value].index
            groups.append((f"{factor.name} = {value}", stage.values.loc[ids]))
    rows = []
    for name, group in groups if len(stage.values.columns) else ():
        row: dict[str, Any] = {"models with": name, "models": len(group)}
        for measure in group:
            values, unit = group[measure].dropna(), unit_of(measure)
            mean, deviation, low, high = values.agg(["mean", "std", "min", "max"]).tolist()
            spread = Spread(mean, deviation, low, high, unit)
            row[title(measure)] = spread if len(values) else None
        rows.append(row)
    return texts.table("distributions", rows, folded=None)


def variance(analysis: Analysis) -> Table:
    """Every factor by every measure: the share that it explains, and what chance would."""
    shares: Columns = dict.fromkeys(("η²", "η² by chance", "adjusted"), "share")
    rows = []
    for effect in [effect for measure in analysis.measures for effect in analysis.of(measure)]:
        key, explained = (title(effect.measure), effect.factor.name), effect.explained
        values = explained.eta_squared, effect.by_chance, explained.adjusted.value
        rows.append((*key, *values, effect.p, explained.models))
    columns: Columns = {"of": "", "factor": "", **shares, "p": "p", "models": ""}
    return texts.table("variance", rows, columns, folded=None)


def mixed_models(analysis: Analysis) -> Table:
    fits = analysis.mixed_models
    names = dict.fromkeys(name for fit in fits.values() if isinstance(fit, Mixed) for name in fit.p)
    rows: list[dict[str, Any]] = []
    for measure, fit in fits.items():
        row = dict.fromkeys(["factors", "parent", "rest", *(f"p of {name}" for name in names)])
        text = f"none: {fit}"
        if isinstance(fit, Mixed):
            row |= {"factors": fit.fixed, "parent": fit.parent, "rest": fit.residual}
            row |= {f"p of {name}": p for name, p in fit.p.items()}
            text = f"{fit.models} models, {fit.parents} parents"
        rows.append({"of": title(measure), **row, "fitted to": text})
    units = dict.fromkeys(("factors", "parent", "rest"), "share")
    units |= {f"p of {name}": "p" for name in names}
    return texts.table("mixed_models", rows, units=units)


def kinship(analysis: Analysis, bootstrap: Bootstrap) -> Table:
    rows, pairs = [], analysis.stage.pairs
    for kin in analysis.kin if len(analysis.kin) > 1 and pairs else ():
        row: dict[str, Any] = {"pairs of": f"models {kin.name}", "pairs": kin.pairs}
        for measure, matrix in pairs.items():
            row[title(measure)] = Quantity(
                bootstrap.pairs(matrix, kin.mask, limits_of(measure)), unit_of(measure)
            )
        rows.append(row)
    return texts.table("kinship", rows)


def within_and_between(analysis: Analysis, bootstrap: Bootstrap) -> Table:
    """How alike models are that share a factor's value, and those that do not."""
    rows, stage = [], analysis.stage
    for measure, matrix in stage.pairs.items():
        for factor in stage.groups:
            sharing = pairs_sharing(factor)
            differing = ~sharing & ~np.eye(len(stage), dtype=bool)
            limits = limits_of(measure)
            near, far = (bootstrap.pairs(matrix, m, limits) for m in (sharing, differing))
            if np.isfinite(near.value) and np.isfinite(far.value):
                difference = bootstrap.contrast(matrix, sharing, differing)
                cells = {"same value": near, "different values": far, "difference": difference}
                unit, row = unit_of(measure), {"of": title(measure), "factor": factor.name}
                rows.append(row | {name: Quantity(cell, unit) for name, cell in cells.items()})
    return texts.table("within_and_between", rows, folded=True)


def models(stage: Stage) -> Table:
    columns: dict[str, Any] = {"model": stage.ids}
    units: dict[str, Unit] = {"model": "id"}
    for factor in stage.factors:
        name = f"{factor.name} (factor)" if factor.name in columns else factor.name
        columns[name] = factor.labels[stage.ids].tolist()
    for measure in stage.values:
        name = title(measure)
        name = f"{name} (measured)" if name in columns else name
        columns[name], units[name] = stage.values[measure].to_numpy(), unit_of(measure)
    (heading,) = texts.lines("models")
    return Table(heading, pd.DataFrame(columns), units=units, folded=True)


def missing(stages: Stages, unavailable: Sequence[Unavailable]) -> Table:
    """Measures that lack values, and why."""
    rows = []
    for stage in stages.stages:
        for entry in stage.missing:
            count = f"{entry.count} of {entry.total} {'pairs' if entry.pairs else 'models'}"
            rows.append((stage.name, title(entry.measure), count, entry.why or "not measured"))
    rows += [("all", title(entry.measure), "none", entry.why) for entry in unavailable]
    names = ("stage", "measure", "has values for", "why")
    return texts.table("missing", rows, dict.fromkeys(names, ""), wrap=True)
