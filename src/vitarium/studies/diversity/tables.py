"""A stage's tables: what is known of its models, and what factors explain."""

import numpy as np

from vitarium.studies.report.page import Table
from vitarium.studies.report.text import DASH, SIGN, interval, number, p_alone, share, title
from vitarium.studies.statistics.analysis import Analysis, alike_in
from vitarium.studies.statistics.bootstrap import Bootstrap
from vitarium.studies.statistics.factors import MANY, Factor
from vitarium.studies.statistics.mixed_model import Mixed
from vitarium.studies.statistics.population import Population, Stage

_UNFOLDED = 30
"""Rows up to which a table of groups is unfolded at first."""


def stages(population: Population) -> Table:
    """A row per stage: models, accuracy, and the factors with their values."""
    rows = []
    for stage in population.stages:
        accuracy = stage.models["accuracy"].dropna()
        spread = (
            [
                number(float(v), "accuracy")
                for v in (accuracy.min(), accuracy.median(), accuracy.max())
            ]
            if len(accuracy)
            else [DASH] * 3
        )
        told = [
            f"{factor.name}: {_values(factor)}"
            + (f" (and with it {', '.join(factor.alike)})" if factor.alike else "")
            for factor in stage.factors
        ]
        rows.append([stage.name, str(len(stage)), *spread, "; ".join(told) or DASH])
    columns = ["stage", "models", "lowest accuracy", "median", "highest", "factors that vary"]
    return Table("The stages", columns, rows, wrap=True)


def _values(factor: Factor) -> str:
    few = len(factor.values) <= MANY
    return ", ".join(factor.values) if few else f"{len(factor.values)} values"


def distributions(stage: Stage) -> Table | None:
    """Mean and standard deviation of each measure, for each value of each factor."""
    if stage.values.empty or not len(stage.values.columns):
        return None
    groups = [("all", stage.ids)]
    for factor in stage.groups:
        labels = factor.labels
        groups += [(f"{factor.name} = {v}", list(labels[labels == v].index)) for v in factor.values]
    rows = [
        [name, str(len(ids)), *(_spread(stage, measure, ids) for measure in stage.values)]
        for name, ids in groups
    ]
    return Table(
        "Distribution of each measure for each value of a factor",
        ["models with", "models", *map(title, stage.values)],
        rows,
        "Mean ± standard deviation, and the range from the smallest to the largest.",
        open=len(rows) <= _UNFOLDED,
    )


def _spread(stage: Stage, measure: str, ids: list[str]) -> str:
    values = stage.values.loc[ids, measure].dropna()
    if not len(values):
        return DASH
    mean = number(float(values.mean()), measure)
    if len(values) == 1:
        return mean
    deviation, low, high = (
        number(float(v), measure).removesuffix(SIGN)
        for v in (values.std(), values.min(), values.max())
    )
    return f"{mean.removesuffix(SIGN)} ± {deviation} [{low}, {high}]" + SIGN * mean.endswith(SIGN)


def variance(analysis: Analysis) -> Table | None:
    """Every factor by every measure: the share that it explains, and what chance would."""
    rows = [
        [
            title(finding.measure),
            finding.factor.name,
            share(finding.share.eta_squared.value),
            _shares(finding.share.eta_squared.low, finding.share.eta_squared.high),
            share((finding.share.groups - 1) / (finding.share.models - 1)),
            share(finding.share.adjusted.value),
            p_alone(finding.p),
            str(finding.share.models),
        ]
        for measure in analysis.measures
        for finding in analysis.of(measure)
    ]
    if not rows:
        return None
    return Table(
        "What each factor explains of the variance",
        ["of", "factor", "η²", "interval", "η² by chance", "adjusted", "p", "models"],
        rows,
        "Adjusted: ε², 0 where a factor means nothing. p: of shuffled labels, times the number "
        "of factors (Bonferroni); labels of parents are shuffled between parents.",
        open=len(rows) <= _UNFOLDED,
    )


def _shares(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return DASH
    return f"[{100 * low:.0f}, {100 * high:.0f}]{SIGN}"


def mixed_models(analysis: Analysis) -> Table | None:
    """The stage's factors as fixed effects and the parent as a random one."""
    if not analysis.mixed:
        return None
    names = list(
        dict.fromkeys(n for m in analysis.mixed.values() if isinstance(m, Mixed) for n in m.p)
    )
    rows = []
    for measure, found in analysis.mixed.items():
        if isinstance(found, Mixed):
            ps = [p_alone(found.p.get(name)) for name in names]
            shares = [share(v) for v in (found.fixed, found.parent, found.residual)]
            size = f"{found.models} models, {found.parents} parents"
            rows.append([title(measure), *shares, *ps, size])
        else:
            rows.append(
                [title(measure), DASH, DASH, DASH, *(DASH for _ in names), f"none: {found}"]
            )
    ps = [f"p of {name}" for name in names]
    return Table(
        "Mixed effects: the factors as fixed effects, the parent as a random effect",
        ["of", "factors", "parent", "rest", *ps, "fitted to"],
        rows,
        "Shares of the variance by restricted maximum likelihood (statsmodels' MixedLM); p by "
        "Wald's test, not corrected.",
    )


def kinship(analysis: Analysis, bootstrap: Bootstrap) -> Table | None:
    """How alike models are, by how close kin they are."""
    pairs = analysis.stage.pairs
    if len(analysis.kin) < 2 or not pairs:
        return None
    rows = []
    for kin in analysis.kin:
        cells = []
        for measure, matrix in pairs.items():
            estimate = bootstrap.pairs(matrix, kin.chosen)
            cells.append(f"{number(estimate.value, measure)} {interval(estimate, measure)}")
        rows.append([f"models {kin.name}", str(kin.pairs), *cells])
    return Table(
        "How alike models are, by kinship",
        ["pairs of", "pairs", *map(title, pairs)],
        rows,
        "Means over pairs, with intervals of the bootstrap over models.",
    )


def within_and_between(analysis: Analysis, bootstrap: Bootstrap) -> Table | None:
    """How alike models are that share a factor's value, and those that do not."""
    stage, rows = analysis.stage, []
    for measure, matrix in stage.pairs.items():
        for factor in stage.groups:
            alike = alike_in(factor)
            other = ~alike & ~np.eye(len(stage), dtype=bool)
            near, far = bootstrap.pairs(matrix, alike), bootstrap.pairs(matrix, other)
            if not (np.isfinite(near.value) and np.isfinite(far.value)):
                continue
            difference = bootstrap.contrast(matrix, alike, other)
            estimates = (near, far, difference)
            cells = [f"{number(e.value, measure)} {interval(e, measure)}" for e in estimates]
            rows.append([title(measure), factor.name, *cells])
    if not rows:
        return None
    return Table(
        "How alike models are that share a factor's value",
        ["of", "factor", "same value", "different values", "difference"],
        rows,
        "Means over pairs, with intervals of the bootstrap over models.",
        open=False,
    )


def models(stage: Stage) -> Table:
    """A row per model."""
    names = list(stage.values)
    rows = [
        [
            id[:8],
            *(factor.labels[id] for factor in stage.factors),
            *(number(float(stage.values.loc[id, name]), name) for name in names),
        ]
        for id in stage.ids
    ]
    columns = ["model", *(factor.name for factor in stage.factors), *map(title, names)]
    return Table("All models of this stage", columns, rows, open=False)
