"""A stage's tables: what is known of its models, and what factors explain."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from vitarium.studies.report.tables import Table
from vitarium.studies.report.text import DASH, Quantity, Spread, Unit, title, unit_of
from vitarium.studies.statistics.analysis import Analysis, pairs_sharing
from vitarium.studies.statistics.bootstrap import Bootstrap
from vitarium.studies.statistics.factors import MANY, Factor
from vitarium.studies.statistics.mixed_model import Mixed
from vitarium.studies.statistics.stages import Stage, Stages

_OVER_PAIRS = "Means over pairs, with intervals of the bootstrap over models."


def stages(population: Stages) -> Table:
    """A row per stage: models, accuracy, and the factors with their values."""
    rows = []
    for stage in population.stages:
        accuracy = stage.models["accuracy"].dropna()
        factors = [
            f"{factor.name}: {_values(factor)}"
            + (f" (and with it {', '.join(factor.equivalent)})" if factor.equivalent else "")
            for factor in stage.factors
        ]
        rows.append(
            {
                "stage": stage.name,
                "models": len(stage),
                "lowest accuracy": accuracy.min(),
                "median": accuracy.median(),
                "highest": accuracy.max(),
                "factors that vary": "; ".join(factors) or DASH,
            }
        )
    units = dict.fromkeys(("lowest accuracy", "median", "highest"), "fraction")
    return Table.of("The stages", rows, units=units, wrap=True)


def _values(factor: Factor) -> str:
    few_values = len(factor.values) <= MANY
    return ", ".join(factor.values) if few_values else f"{len(factor.values)} values"


def distributions(stage: Stage) -> Table:
    """Mean and standard deviation of each measure, for each value of each factor."""
    groups = [("all", stage.ids)]
    for factor in stage.groups:
        labels = factor.labels
        groups += [(f"{factor.name} = {v}", list(labels[labels == v].index)) for v in factor.values]
    rows = [
        {
            "models with": name,
            "models": len(ids),
            **{title(measure): _spread(stage, measure, ids) for measure in stage.values},
        }
        for name, ids in groups
        if len(stage.values.columns)
    ]
    note = "Mean ± standard deviation, and the range from the smallest to the largest."
    heading = "Distribution of each measure for each value of a factor"
    return Table.of(heading, rows, note, folded=None)


def _spread(stage: Stage, measure: str, ids: list[str]) -> Spread | None:
    values = stage.values.loc[ids, measure].dropna()
    if not len(values):
        return None
    return Spread(
        float(values.mean()),
        float(values.std()) if len(values) > 1 else math.nan,
        float(values.min()),
        float(values.max()),
        unit_of(measure),
    )


def variance(analysis: Analysis) -> Table:
    """Every factor by every measure: the share that it explains, and what chance would."""
    rows = [
        {
            "of": title(effect.measure),
            "factor": effect.factor.name,
            "η²": effect.explained.eta_squared,
            "η² by chance": effect.by_chance,
            "adjusted": effect.explained.adjusted.value,
            "p": effect.p,
            "models": effect.explained.models,
        }
        for measure in analysis.measures
        for effect in analysis.of(measure)
    ]
    return Table.of(
        "What each factor explains of the variance",
        rows,
        "η² with its interval. Adjusted: ε², 0 where a factor means nothing. p: of shuffled "
        "labels, times the number of factors (Bonferroni); labels of parents are shuffled between "
        "parents.",
        units={"η²": "share", "η² by chance": "share", "adjusted": "share", "p": "p"},
        folded=None,
    )


def mixed_models(analysis: Analysis) -> Table:
    """The stage's factors as fixed effects and the parent as a random one."""
    fits = analysis.mixed_models
    names = dict.fromkeys(n for fit in fits.values() if isinstance(fit, Mixed) for n in fit.p)
    rows = []
    for measure, fit in fits.items():
        row: dict[str, Any] = {"of": title(measure)}
        if isinstance(fit, Mixed):
            row |= {"factors": fit.fixed, "parent": fit.parent, "rest": fit.residual}
            row |= {f"p of {name}": fit.p.get(name) for name in names}
            row["fitted to"] = f"{fit.models} models, {fit.parents} parents"
        else:
            row |= dict.fromkeys(["factors", "parent", "rest", *(f"p of {n}" for n in names)])
            row["fitted to"] = f"none: {fit}"
        rows.append(row)
    return Table.of(
        "Mixed effects: the factors as fixed effects, the parent as a random effect",
        rows,
        "Shares of the variance by restricted maximum likelihood (statsmodels' MixedLM); p by "
        "Wald's test, not corrected.",
        units={"factors": "share", "parent": "share", "rest": "share"}
        | {f"p of {name}": "p" for name in names},
    )


def kinship(analysis: Analysis, bootstrap: Bootstrap) -> Table:
    """How alike models are, by how close kin they are."""
    rows = [
        {
            "pairs of": f"models {kin.name}",
            "pairs": kin.pairs,
            **{
                title(measure): Quantity(bootstrap.pairs(matrix, kin.mask), unit_of(measure))
                for measure, matrix in analysis.stage.pairs.items()
            },
        }
        for kin in analysis.kin
        if len(analysis.kin) > 1 and analysis.stage.pairs
    ]
    return Table.of("How alike models are, by kinship", rows, _OVER_PAIRS)


def within_and_between(analysis: Analysis, bootstrap: Bootstrap) -> Table:
    """How alike models are that share a factor's value, and those that do not."""
    rows = list(_within_and_between(analysis, bootstrap))
    heading = "How alike models are that share a factor's value"
    return Table.of(heading, rows, _OVER_PAIRS, folded=True)


def _within_and_between(analysis: Analysis, bootstrap: Bootstrap) -> Iterable[dict[str, Any]]:
    stage = analysis.stage
    for measure, matrix in stage.pairs.items():
        for factor in stage.groups:
            sharing = pairs_sharing(factor)
            differing = ~sharing & ~np.eye(len(stage), dtype=bool)
            near, far = bootstrap.pairs(matrix, sharing), bootstrap.pairs(matrix, differing)
            if np.isfinite(near.value) and np.isfinite(far.value):
                difference = bootstrap.contrast(matrix, sharing, differing)
                unit = unit_of(measure)
                yield {
                    "of": title(measure),
                    "factor": factor.name,
                    "same value": Quantity(near, unit),
                    "different values": Quantity(far, unit),
                    "difference": Quantity(difference, unit),
                }


def models(stage: Stage) -> Table:
    """A row per model."""
    columns: dict[str, Any] = {"model": stage.ids}
    units: dict[str, Unit] = {"model": "id"}
    for factor in stage.factors:
        name = f"{factor.name} (factor)" if factor.name in columns else factor.name
        columns[name] = factor.labels[stage.ids].tolist()
    for measure in stage.values:
        name = title(measure)
        name = f"{name} (measured)" if name in columns else name
        columns[name], units[name] = stage.values[measure].to_numpy(), unit_of(measure)
    frame = pd.DataFrame(columns)
    return Table("All models of this stage", frame, units=units, folded=True)
