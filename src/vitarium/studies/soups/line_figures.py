"""Figures of the loss between models: barriers by kinship, by lineage, and after alignment."""

from dataclasses import replace
from typing import Any

import altair as alt
import numpy as np

from vitarium.studies.report.figures import PALETTE, Figure, data
from vitarium.studies.report.pair_figures import drawn_pairs
from vitarium.studies.soups.barriers import BEFORE, Lines
from vitarium.studies.soups.estimates import Walks
from vitarium.studies.statistics.population import Stage

_SMALL, _HIGH = 235, 235
"""Of a panel, in pixels."""


def curves(stage: Stage, lines: Lines) -> Figure | None:
    """The loss on the way from one model to another, a panel per alignment."""
    if not lines.found:
        return None
    rows = [
        {
            "t": t,
            "rise": float(rise),
            "kin": line.kin,
            "panel": _panel(line.align),
            "pair": f"{line.one[:8]} to {line.other[:8]}",
        }
        for line in lines.found
        for t, rise in zip(line.places, line.rise, strict=True)
    ]
    picked = alt.selection_point(name="picked", fields=["kin"], bind="legend")
    x = alt.X("t:Q", axis=alt.Axis(title="way from one model to the other", format=".1f"))
    y = alt.Y("rise:Q", axis=alt.Axis(title="rise of the loss (nats)"))
    faint = 0.35 if len(lines.found) <= 60 else 0.14
    base = alt.Chart()
    thin = base.mark_line(strokeWidth=1).encode(
        x=x,
        y=y,
        detail="pair:N",
        color=_by_kin(lines),
        strokeOpacity=alt.condition(picked, alt.value(faint), alt.value(0.02)),
    )
    thick = base.mark_line(strokeWidth=3.5).encode(
        x=x,
        y=alt.Y("mean(rise):Q", title="rise of the loss (nats)"),
        color=_by_kin(lines),
        strokeOpacity=alt.condition(picked, alt.value(1), alt.value(0.05)),
        tooltip=[alt.Tooltip("kin:N", title="models"), alt.Tooltip("mean(rise):Q", format=".3f")],
    )
    panels = [_panel(align) for align in lines.alignments]
    chart = (
        alt.layer(thin, thick, data=data(rows))
        .properties(width=_SMALL, height=_HIGH)
        .facet(
            column=alt.Column(
                "panel:N",
                sort=panels,
                header=alt.Header(title=None, labelFontSize=12, labelFontWeight=600),
            )
        )
        .add_params(picked)
    )
    return Figure(
        f"{stage.name}-barrier-curves",
        "The loss between two models, by how close kin they are",
        "Models on the straight line between two: how much more they lose than the line between "
        "what both ends lose. A thin line per pair, a thick one for the mean. Where it stays at 0, "
        "models may be averaged.",
        chart,
    )


def heat_maps(stage: Stage, lines: Lines) -> list[Figure]:
    """Barriers of pairs by lineage, before and after each alignment, on one scale."""
    found = []
    matrices = {align: lines.matrix(stage, "barrier", align) for align in lines.alignments}
    largest = max(
        (float(np.nanmax(m)) for m in matrices.values() if np.isfinite(m).any()), default=0
    )
    for align, matrix in matrices.items():
        name = f"{stage.name}-barriers" + (f"-after-{align.replace('_', '-')}" if align else "")
        figure = drawn_pairs(
            stage,
            matrix,
            name,
            f"Barriers {_panel(align)}",
            "barrier (nats)",
            reverse=True,
            domain=[0.0, largest or 1.0],
        )
        if figure:
            told = f"{figure.caption} White: not measured, as between heads of different shapes."
            found.append(replace(figure, caption=told))
    return found


def before_and_after(stage: Stage, lines: Lines) -> Figure | None:
    """Each pair's barrier before and after an alignment."""
    before = {(line.one, line.other): line.barrier for line in lines.of(BEFORE)}
    rows: list[dict[str, Any]] = [
        {
            "before": before[line.one, line.other],
            "after": line.barrier,
            "kin": line.kin,
            "panel": _panel(line.align),
            "pair": f"{line.one[:8]} and {line.other[:8]}",
        }
        for line in lines.found
        if line.align and (line.one, line.other) in before
    ]
    if not rows:
        return None
    top = 1.05 * max(max(row["before"], row["after"]) for row in rows) or 1.0
    scale = alt.Scale(domain=[0, top], nice=False)
    base = alt.Chart()
    same = base.transform_aggregate(n="count()").transform_calculate(a="0", b=f"{top}")
    diagonal = same.mark_rule(color="#8b95a3", strokeDash=[4, 3]).encode(
        x=alt.X("a:Q", scale=scale), y=alt.Y("a:Q", scale=scale), x2="b:Q", y2="b:Q"
    )
    dots = base.mark_circle(size=55, opacity=0.75).encode(
        x=alt.X("before:Q", scale=scale, axis=alt.Axis(title="barrier before (nats)")),
        y=alt.Y("after:Q", scale=scale, axis=alt.Axis(title="barrier after (nats)")),
        color=_by_kin(lines),
        tooltip=[
            alt.Tooltip("pair:N"),
            alt.Tooltip("kin:N", title="models"),
            alt.Tooltip("before:Q", format=".3f"),
            alt.Tooltip("after:Q", format=".3f"),
        ],
    )
    chart = (
        alt.layer(diagonal, dots, data=data(rows))
        .properties(width=_SMALL, height=_HIGH)
        .facet(
            column=alt.Column(
                "panel:N",
                sort=[_panel(align) for align in lines.alignments],
                header=alt.Header(title=None, labelFontSize=12, labelFontWeight=600),
            )
        )
    )
    return Figure(
        f"{stage.name}-barriers-before-and-after",
        "Where alignment helps",
        "A point per pair: its barrier before and after the second model was rearranged to match "
        "the first. Below the dashed line alignment helps; at the bottom nothing is left to help.",
        chart,
    )


def siblings(stage: Stage, walks: Walks, factor: str) -> Figure | None:
    """Barriers and soups of siblings that share a value of a factor."""
    found = stage.factor(factor)
    levels = walks.of_siblings(found) if found else []
    if len(levels) < 2 or found is None:
        return None
    labels = found.labels
    values = {level.value: level.name for level in levels}
    rows = []
    for line in walks.lines.of(BEFORE, walks.lines.kin[0].name):
        one, other = labels[line.one], labels[line.other]
        rows.append(
            {
                "level": values[one if one == other else "different"],
                "pair": f"{line.one[:8]} and {line.other[:8]}",
                "barrier": line.barrier,
                "gain": 100 * line.soup_gain,
            }
        )
    means = [
        {
            "level": level.name,
            **{key: getattr(level.barrier, key) for key in ("low", "high")},
            "barrier": level.barrier.value,
            "gain": 100 * level.gain.value,
            "gain_low": None if level.gain.low is None else 100 * level.gain.low,
            "gain_high": None if level.gain.high is None else 100 * level.gain.high,
        }
        for level in levels
    ]
    order = [level.name for level in levels]

    def panel(value: str, low: str, high: str, title: str, axis: bool) -> Any:
        y = alt.Y(
            "level:N", sort=order, axis=alt.Axis(title=None, labelLimit=220) if axis else None
        )
        x = alt.X(f"{value}:Q", axis=alt.Axis(title=title, tickCount=5))
        dots = (
            alt.Chart(data(rows))
            .mark_circle(size=45, opacity=0.5, color=PALETTE[0])
            .encode(x=x, y=y, tooltip=[alt.Tooltip("pair:N"), alt.Tooltip(f"{value}:Q")])
        )
        mean = alt.Chart(data(means))
        bars = mean.mark_rule(strokeWidth=3, color=PALETTE[1]).encode(
            x=alt.X(f"{low}:Q", title=title), x2=f"{high}:Q", y=y
        )
        centre = mean.mark_point(
            shape="diamond", size=120, filled=True, opacity=1, color=PALETTE[1]
        ).encode(x=x, y=y)
        layers = alt.layer(dots, bars, centre)
        return layers.properties(width=320, height=alt.Step(34))

    chart = alt.hconcat(
        panel("barrier", "low", "high", "barrier (nats)", axis=True),
        panel(
            "gain", "gain_low", "gain_high", "points of their soup against their mean", axis=False
        ),
        spacing=26,
    )
    return Figure(
        f"{stage.name}-siblings-by-{factor.replace('_', '-').replace('.', '-')}",
        f"Siblings by {factor}",
        f"Pairs of children of one parent that were trained with the same {factor}, and with "
        "different ones: the barrier between them, and the accuracy of their mean weights less "
        "the mean of their accuracies. Orange: means with intervals over models.",
        chart,
    )


def _panel(align: str) -> str:
    return f"after {align.replace('_', ' ')}" if align else "as they are"


def _by_kin(lines: Lines) -> alt.Color:
    names = [kin.name for kin in lines.kin]
    return alt.Color(
        "kin:N",
        sort=names,
        scale=alt.Scale(domain=names, range=PALETTE[: len(names)]),
        legend=alt.Legend(
            title=None,
            orient="top",
            symbolType="circle",
            symbolOpacity=1,
            labelLimit=320,
            columns=3,
        ),
    )
