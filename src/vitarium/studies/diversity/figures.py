"""Figures of models one by one: how they learn, how they generalise, what explains them."""

import altair as alt
import numpy as np

from vitarium.studies.report.figures import (
    GOLDEN,
    GROUP,
    HEIGHT,
    PALETTE,
    WIDTH,
    Figure,
    ModelColors,
    axis,
    categories,
    data,
    group_color,
    panels,
)
from vitarium.studies.report.text import title
from vitarium.studies.statistics.analysis import Analysis
from vitarium.studies.statistics.stages import Stage

_MANY = 40
"""Models of which single curves become faint."""
_CLEAR = ["clear (p < 0.05)", "not clear"]


def curves(stage: Stage, first: str | None) -> Figure | None:
    """Accuracy over epochs, a line per model and a thick one per group."""
    if not len(stage.epochs):
        return None
    colors = ModelColors(stage, first)
    base = (
        alt.Chart(data(stage.epochs))
        .transform_lookup(lookup="model", from_=colors.lookup())
        .transform_calculate(group=GROUP)
    )
    x = alt.X("epoch:Q", axis=alt.Axis(title="epoch", tickMinStep=1))
    y = alt.Y("accuracy:Q", axis=axis("accuracy", title=stage.score))
    faint = 0.6 if len(stage) <= _MANY else 0.15
    lines = base.mark_line(strokeWidth=1).encode(
        x=x,
        y=y,
        detail="model:N",
        color=group_color(),
        # of the stroke: opacity of whole marks makes the image of many lines take minutes
        strokeOpacity=colors.when_picked(faint, 0.03),
        tooltip=colors.tooltip("accuracy"),
    )
    means = base.mark_line(strokeWidth=3).encode(
        x=x,
        y=alt.Y("mean(accuracy):Q", title=stage.score),
        color=group_color(),
        strokeOpacity=colors.when_picked(1, 0.05),
    )
    chart = (lines + means).add_params(colors.menu(), colors.legend_click)
    return Figure(
        f"{stage.name}-accuracy-over-epochs",
        "Accuracy over epochs",
        "A thin line per model, a thick one per group: its mean. Click a group in the legend to "
        f"see it alone. On paper: by {colors.name}.",
        chart.properties(width=WIDTH, height=HEIGHT),
    )


def against_accuracy(stage: Stage, measure: str, first: str | None) -> Figure | None:
    """A point per model: a measure, and the accuracy."""
    if measure not in stage.values or "accuracy" not in stage.values:
        return None
    values = stage.values[[measure, "accuracy"]].dropna()
    if len(values) < 3:
        return None
    colors = ModelColors(stage, first)
    wide = bool((values[measure] > 0).all() and values[measure].max() > 20 * values[measure].min())
    scale = alt.Scale(type="log") if wide else alt.Scale(zero=False, nice=True)
    chart = (
        alt.Chart(data(colors.table[colors.table["model"].isin(values.index)]))
        .transform_calculate(group=GROUP)
        .mark_circle(size=70)
        .encode(
            x=alt.X(f"{measure}:Q", scale=scale, axis=axis(measure)),
            y=alt.Y(
                "accuracy:Q", scale=alt.Scale(zero=False), axis=axis("accuracy", title=stage.score)
            ),
            color=group_color("top"),
            opacity=colors.when_picked(0.85, 0.06),
            tooltip=colors.tooltip("accuracy", measure),
        )
        .add_params(colors.menu(), colors.legend_click)
    )
    return Figure(
        f"{stage.name}-accuracy-against-{measure.replace('_', '-')}",
        f"Accuracy against {title(measure)}",
        f"A point per model, {len(values)} of {len(stage)}. On paper: by {colors.name}.",
        chart.properties(width=390, height=280),
        wide=False,
    )


def distributions(stage: Stage, first: str | None) -> Figure | None:
    """Every measure by every factor, each to be chosen."""
    measures = list(stage.values)
    if not measures or len(stage) < 2:
        return None
    colors = ModelColors(stage, first)
    menu = alt.binding_select(options=measures, labels=[title(m) for m in measures], name="Of ")
    measure = alt.param(name="measure", value=measures[0], bind=menu)
    base = (
        alt.Chart(data(colors.table.assign(jitter=np.arange(len(stage)) * GOLDEN % 1)))
        .transform_calculate(group=GROUP, value="datum[measure]")
        .transform_filter("isValid(datum.value)")
    )
    y = alt.Y("group:N", axis=alt.Axis(title=None, labelLimit=200))
    x = alt.X("value:Q", scale=alt.Scale(zero=False), axis=alt.Axis(title=None))
    boxes = base.mark_boxplot(extent="min-max", size=18, opacity=0.35).encode(
        x=x, y=y, color=group_color(None)
    )
    points = base.mark_circle(size=40, opacity=0.75).encode(
        x=x,
        y=y,
        yOffset=alt.YOffset("jitter:Q", scale=alt.Scale(domain=[-0.6, 1.6])),
        color=group_color(None),
        tooltip=colors.tooltip(*measures),
    )
    chart = (boxes + points).add_params(measure, colors.menu("by "))
    return Figure(
        f"{stage.name}-distributions",
        "Distribution of each measure by each factor",
        "Boxes: quartiles, whiskers to the smallest and largest; a point per model. On paper: "
        f"{title(measures[0])} by {colors.name}.",
        chart.properties(width=WIDTH, height=alt.Step(34)),
    )


def variance(analysis: Analysis) -> Figure | None:
    """What each factor explains of each measure, with intervals, and what chance would."""
    rows = [
        {
            "measure": title(effect.measure),
            "factor": effect.factor.name,
            "share": effect.explained.eta_squared.value,
            "low": effect.explained.eta_squared.low,
            "high": effect.explained.eta_squared.high,
            "chance": effect.by_chance,
            "clear": _CLEAR[not effect.is_clear],
            "p": effect.p,
        }
        for effect in analysis.effects
    ]
    if not rows:
        return None
    factors = [factor.name for factor in analysis.stage.groups]
    y = alt.Y("factor:N", sort=factors, axis=alt.Axis(title=None, labelLimit=140))
    percent = alt.Axis(title=None, format="%", tickCount=3)

    def x(column: str) -> alt.X:
        return alt.X(f"{column}:Q", scale=alt.Scale(domain=[0, 1]), axis=percent)

    tips = [alt.Tooltip(f"{name}:N") for name in ("measure", "factor")]
    shares = ("share", "low", "high", "chance")
    tips += [alt.Tooltip(f"{name}:Q", format=".1%") for name in shares]
    tips.append(alt.Tooltip("p:Q", title="p (corrected)", format=".3f"))
    clear = categories("clear", _CLEAR, [PALETTE[0], "#a9b1bd"])
    base = alt.Chart()
    bars = base.mark_bar(size=9).encode(x=x("share"), y=y, color=clear, tooltip=tips)
    whiskers = base.mark_rule(strokeWidth=1.5, color="#6b7280")
    chance = base.mark_tick(color=PALETTE[1], thickness=2, size=13)
    panel = alt.layer(
        bars,
        whiskers.encode(x=x("low"), x2="high:Q", y=y),
        chance.encode(x=x("chance"), y=y),
        data=data(rows),
    ).properties(width=170, height=alt.Step(19))
    return Figure(
        f"{analysis.stage.name}-variance",
        "What explains the differences",
        "η²: the share of the variance that lies between the values of a factor, with its interval "
        "(grey line); orange: what a factor without any effect would show. Of pairs of models the "
        "squared distances are explained.",
        panels(panel, "measure", [title(measure) for measure in analysis.measures], 4),
    )
