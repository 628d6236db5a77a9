"""Figures of models one by one: how they learn, how they generalise, what they are made of."""

import altair as alt
import numpy as np

from vitarium.studies.report.figures import (
    GROUP,
    HEIGHT,
    WIDTH,
    Colours,
    Figure,
    axis,
    colour,
    data,
)
from vitarium.studies.report.text import title
from vitarium.studies.statistics.analysis import Analysis
from vitarium.studies.statistics.population import Stage

_GOLDEN = (5**0.5 - 1) / 2
"""Multiples of it fall evenly, and never side by side."""
_MANY = 40
"""Models of which single curves become faint."""


def curves(stage: Stage, first: str | None) -> Figure | None:
    """Accuracy over epochs, a line per model and a thick one per group."""
    if not len(stage.epochs):
        return None
    colours = Colours(stage, first)
    picked = alt.selection_point(name="picked", fields=["group"], bind="legend")
    base = (
        alt.Chart(data(stage.epochs))
        .transform_lookup(
            lookup="model",
            from_=alt.LookupData(
                data=data(colours.table), key="model", fields=["id", *colours.columns]
            ),
        )
        .transform_calculate(group=GROUP)
    )
    x = alt.X("epoch:Q", axis=alt.Axis(title="epoch", tickMinStep=1))
    y = alt.Y("accuracy:Q", axis=axis("accuracy", title=stage.score))
    faint = 0.6 if len(stage) <= _MANY else 0.15
    lines = base.mark_line(strokeWidth=1).encode(
        x=x,
        y=y,
        detail="model:N",
        color=colour(),
        # of the stroke: opacity of whole marks makes the image of many lines take minutes
        strokeOpacity=alt.condition(picked, alt.value(faint), alt.value(0.03)),
        tooltip=colours.tooltip("accuracy"),
    )
    means = base.mark_line(strokeWidth=3).encode(
        x=x,
        y=alt.Y("mean(accuracy):Q", title=stage.score),
        color=colour(),
        strokeOpacity=alt.condition(picked, alt.value(1), alt.value(0.05)),
    )
    chart = (lines + means).add_params(colours.menu(), picked)
    return Figure(
        f"{stage.name}-accuracy-over-epochs",
        "Accuracy over epochs",
        "A thin line per model, a thick one per group: its mean. Click a group in the legend to "
        f"see it alone. On paper: by {colours.name}.",
        chart.properties(width=WIDTH, height=HEIGHT),
    )


def against_accuracy(stage: Stage, measure: str, first: str | None) -> Figure | None:
    """A point per model: a measure, and the accuracy."""
    if measure not in stage.values or "accuracy" not in stage.values:
        return None
    there = stage.values[[measure, "accuracy"]].dropna()
    if len(there) < 3:
        return None
    colours = Colours(stage, first)
    picked = alt.selection_point(name="picked", fields=["group"], bind="legend")
    positive = bool((there[measure] > 0).all())
    wide = positive and there[measure].max() > 20 * there[measure].min()
    scale = alt.Scale(type="log") if wide else alt.Scale(zero=False, nice=True)
    chart = (
        alt.Chart(data(colours.table[colours.table["model"].isin(there.index)]))
        .transform_calculate(group=GROUP)
        .mark_circle(size=70)
        .encode(
            x=alt.X(f"{measure}:Q", scale=scale, axis=axis(measure)),
            y=alt.Y(
                "accuracy:Q", scale=alt.Scale(zero=False), axis=axis("accuracy", title=stage.score)
            ),
            color=colour("top"),
            opacity=alt.condition(picked, alt.value(0.85), alt.value(0.06)),
            tooltip=colours.tooltip("accuracy", measure),
        )
        .add_params(colours.menu(), picked)
    )
    return Figure(
        f"{stage.name}-accuracy-against-{measure.replace('_', '-')}",
        f"Accuracy against {title(measure)}",
        f"A point per model, {len(there)} of {len(stage)}. On paper: by {colours.name}.",
        chart.properties(width=390, height=280),
        wide=False,
    )


def distributions(stage: Stage, first: str | None) -> Figure | None:
    """Every measure by every factor, each to be chosen."""
    measures = list(stage.values)
    if not measures or len(stage) < 2:
        return None
    colours = Colours(stage, first)
    jitter = np.arange(len(stage)) * _GOLDEN % 1
    menu = alt.binding_select(options=measures, labels=[title(m) for m in measures], name="Of ")
    measure = alt.param(name="measure", value=measures[0], bind=menu)
    base = (
        alt.Chart(data(colours.table.assign(jitter=jitter)))
        .transform_calculate(group=GROUP, value="datum[measure]")
        .transform_filter("isValid(datum.value)")
    )
    y = alt.Y("group:N", axis=alt.Axis(title=None, labelLimit=200))
    x = alt.X("value:Q", scale=alt.Scale(zero=False), axis=alt.Axis(title=None))
    boxes = base.mark_boxplot(extent="min-max", size=18, opacity=0.35).encode(
        x=x, y=y, color=colour(None)
    )
    points = base.mark_circle(size=40, opacity=0.75).encode(
        x=x,
        y=y,
        yOffset=alt.YOffset("jitter:Q", scale=alt.Scale(domain=[-0.6, 1.6])),
        color=colour(None),
        tooltip=colours.tooltip(*measures),
    )
    chart = (boxes + points).add_params(measure, colours.menu("by "))
    return Figure(
        f"{stage.name}-distributions",
        "Distribution of each measure by each factor",
        "Boxes: quartiles, whiskers to the smallest and largest; a point per model. On paper: "
        f"{title(measures[0])} by {colours.name}.",
        chart.properties(width=WIDTH, height=alt.Step(34)),
    )


def variance(analysis: Analysis) -> Figure | None:
    """What each factor explains of each measure, with intervals, and what chance would."""
    rows = [
        {
            "measure": title(finding.measure),
            "factor": finding.factor.name,
            "share": finding.share.eta_squared.value,
            "low": finding.share.eta_squared.low,
            "high": finding.share.eta_squared.high,
            "chance": (finding.share.groups - 1) / (finding.share.models - 1),
            "clear": "clear (p < 0.05)" if finding.is_clear else "not clear",
            "p": finding.p,
        }
        for finding in analysis.findings
    ]
    if not rows:
        return None
    order = [title(measure) for measure in analysis.measures]
    factors = [factor.name for factor in analysis.stage.groups]
    base = alt.Chart()
    y = alt.Y("factor:N", sort=factors, axis=alt.Axis(title=None, labelLimit=140))
    scale = alt.Scale(domain=[0, 1])
    percent = alt.Axis(title=None, format="%", tickCount=3)
    clear = alt.Color(
        "clear:N",
        scale=alt.Scale(domain=["clear (p < 0.05)", "not clear"], range=["#3b6fb6", "#a9b1bd"]),
        legend=alt.Legend(title=None, orient="top"),
    )
    told = [
        alt.Tooltip("measure:N"),
        alt.Tooltip("factor:N"),
        *(
            alt.Tooltip(f"{column}:Q", format=".1%")
            for column in ("share", "low", "high", "chance")
        ),
        alt.Tooltip("p:Q", title="p (corrected)", format=".3f"),
    ]
    x = alt.X("share:Q", scale=scale, axis=percent)
    bars = base.mark_bar(size=9).encode(x=x, y=y, color=clear, tooltip=told)
    whiskers = base.mark_rule(strokeWidth=1.5, color="#6b7280").encode(
        x=alt.X("low:Q", scale=scale, axis=percent), x2="high:Q", y=y
    )
    chance = base.mark_tick(color="#d9702b", thickness=2, size=13).encode(
        x=alt.X("chance:Q", scale=scale, axis=percent), y=y
    )
    panel = alt.layer(bars, whiskers, chance, data=data(rows)).properties(
        width=170, height=alt.Step(19)
    )
    chart = panel.facet(
        facet=alt.Facet("measure:N", sort=order, header=alt.Header(title=None, labelFontSize=11)),
        columns=4,
    )
    return Figure(
        f"{analysis.stage.name}-variance",
        "What explains the differences",
        "η²: the share of the variance that lies between the values of a factor, with its interval "
        "(grey line); orange: what a factor without any effect would show. Of pairs of models the "
        "squared distances are explained.",
        chart,
    )
