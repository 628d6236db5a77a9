"""Figures of the loss between models: barriers by kinship, by lineage, and after alignment."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import altair as alt
import numpy as np

from vitarium.studies.report.figures import (
    LINE,
    Figure,
    categories,
    data,
    panels,
    points_with_means,
)
from vitarium.studies.report.matrices import matrix_figure
from vitarium.studies.soups.barriers import BEFORE, InterpolationPath, InterpolationPaths
from vitarium.studies.soups.estimates import DIFFERENT, BarrierEstimates
from vitarium.studies.soups.figures import points
from vitarium.studies.statistics.factors import Factor
from vitarium.studies.statistics.stages import Stage

_SIDE = 235
"""Of a panel, in pixels."""


def curves(stage: Stage, paths: InterpolationPaths) -> Figure | None:
    """The loss on the way from one model to another, a panel per alignment."""
    if not paths.paths:
        return None
    rows = [
        {"t": t, "rise": float(rise), **_cells(path, "to")}
        for path in paths.paths
        for t, rise in zip(path.t, path.rise, strict=True)
    ]
    legend_click = alt.selection_point(name="picked", fields=["kin"], bind="legend")
    x = alt.X("t:Q", axis=alt.Axis(title="way from one model to the other", format=".1f"))
    y = alt.Y("rise:Q", axis=alt.Axis(title="rise of the loss (nats)"))
    faint = 0.35 if len(paths.paths) <= 60 else 0.14
    base = alt.Chart()
    thin = base.mark_line(strokeWidth=1).encode(
        x=x,
        y=y,
        detail="pair:N",
        color=_kin_color(paths),
        strokeOpacity=alt.condition(legend_click, alt.value(faint), alt.value(0.02)),
    )
    thick = base.mark_line(strokeWidth=3.5).encode(
        x=x,
        y=alt.Y("mean(rise):Q", title="rise of the loss (nats)"),
        color=_kin_color(paths),
        strokeOpacity=alt.condition(legend_click, alt.value(1), alt.value(0.05)),
        tooltip=[alt.Tooltip("kin:N", title="models"), alt.Tooltip("mean(rise):Q", format=".3f")],
    )
    return Figure(
        f"{stage.name}-barrier-curves",
        "The loss between two models, by how close kin they are",
        "Models on the straight line between two: how much more they lose than the line between "
        "what both ends lose. A thin line per pair, a thick one for the mean. Where it stays at 0, "
        "models may be averaged.",
        _panels(alt.layer(thin, thick, data=data(rows)), paths).add_params(legend_click),
    )


def heat_maps(stage: Stage, paths: InterpolationPaths) -> Iterator[Figure]:
    """Barriers of pairs by lineage, before and after each alignment, on one scale."""
    matrices = {align: paths.matrix(stage, "barrier", align) for align in paths.alignments}
    finite = [matrix for matrix in matrices.values() if np.isfinite(matrix).any()]
    largest = max((float(np.nanmax(matrix)) for matrix in finite), default=0)
    for align, matrix in matrices.items():
        suffix = f"-after-{align.replace('_', '-')}" if align else ""
        figure = matrix_figure(
            stage,
            matrix,
            f"{stage.name}-barriers{suffix}",
            f"Barriers {_panel(align)}",
            "barrier (nats)",
            reverse=True,
            domain=[0.0, largest or 1.0],
        )
        if figure:
            note = "White: not measured, as between heads of different shapes."
            yield replace(figure, caption=f"{figure.caption} {note}")


def before_and_after(stage: Stage, paths: InterpolationPaths) -> Figure | None:
    """Each pair's barrier before and after an alignment."""
    before = {(path.first, path.second): path.barrier for path in paths.of(BEFORE)}
    rows: list[dict[str, Any]] = [
        {
            "before": before[path.first, path.second],
            "after": path.barrier,
            **_cells(path, "and"),
        }
        for path in paths.paths
        if path.align and (path.first, path.second) in before
    ]
    if not rows:
        return None
    top = 1.05 * max(max(row["before"], row["after"]) for row in rows) or 1.0
    scale = alt.Scale(domain=[0, top], nice=False)
    base = alt.Chart()
    ends = base.transform_aggregate(n="count()").transform_calculate(a="0", b=f"{top}")
    diagonal = ends.mark_rule(color=LINE, strokeDash=[4, 3]).encode(
        x=alt.X("a:Q", scale=scale), y=alt.Y("a:Q", scale=scale), x2="b:Q", y2="b:Q"
    )
    dots = base.mark_circle(size=55, opacity=0.75).encode(
        x=alt.X("before:Q", scale=scale, axis=alt.Axis(title="barrier before (nats)")),
        y=alt.Y("after:Q", scale=scale, axis=alt.Axis(title="barrier after (nats)")),
        color=_kin_color(paths),
        tooltip=[
            alt.Tooltip("pair:N"),
            alt.Tooltip("kin:N", title="models"),
            alt.Tooltip("before:Q", format=".3f"),
            alt.Tooltip("after:Q", format=".3f"),
        ],
    )
    return Figure(
        f"{stage.name}-barriers-before-and-after",
        "Where alignment helps",
        "A point per pair: its barrier before and after the second model was rearranged to match "
        "the first. Below the dashed line alignment helps; at the bottom nothing is left to help.",
        _panels(alt.layer(diagonal, dots, data=data(rows)), paths),
    )


def siblings(stage: Stage, estimates: BarrierEstimates, factor: Factor) -> Figure | None:
    """Barriers and soups of siblings that share a value of a factor."""
    levels = estimates.siblings(factor)
    if len(levels) < 2:
        return None
    names = {level.value: level.name for level in levels}
    rows = []
    for path in estimates.paths.of(BEFORE, estimates.paths.kin[0].name):
        first, second = factor.labels[path.first], factor.labels[path.second]
        rows.append(
            {
                "level": names[first if first == second else DIFFERENT],
                "pair": _cells(path, "and")["pair"],
                "barrier": path.barrier,
                "gain": 100 * path.soup_gain,
            }
        )
    means = [
        {
            "level": level.name,
            "barrier": level.barrier.value,
            "low": level.barrier.low,
            "high": level.barrier.high,
            **points(level.gain, "gain_"),
        }
        for level in levels
    ]

    def panel(column: str, interval: tuple[str, str], title: str, axis: alt.Axis | None) -> Any:
        y = alt.Y("level:N", sort=list(names.values()), axis=axis)
        chart = points_with_means(
            rows,
            means,
            column,
            alt.Axis(title=title, tickCount=5),
            y,
            interval=interval,
            tooltip=[alt.Tooltip("pair:N"), alt.Tooltip(f"{column}:Q")],
        )
        return chart.properties(width=320, height=alt.Step(34))

    labels = alt.Axis(title=None, labelLimit=220)
    gain_title = "points of their soup against their mean"
    chart = alt.hconcat(
        panel("barrier", ("low", "high"), "barrier (nats)", labels),
        panel("gain", ("gain_low", "gain_high"), gain_title, None),
        spacing=26,
    )
    name = factor.name.replace("_", "-").replace(".", "-")
    return Figure(
        f"{stage.name}-siblings-by-{name}",
        f"Siblings by {factor.name}",
        f"Pairs of children of one parent that were trained with the same {factor.name}, and with "
        "different ones: the barrier between them, and the accuracy of their mean weights less "
        "the mean of their accuracies. Orange: means with intervals over models.",
        chart,
    )


def _cells(path: InterpolationPath, word: str) -> dict[str, str]:
    pair = f"{path.first[:8]} {word} {path.second[:8]}"
    return {"kin": path.kin, "panel": _panel(path.align), "pair": pair}


def _panel(align: str) -> str:
    return f"after {align.replace('_', ' ')}" if align else "as they are"


def _panels(chart: Any, paths: InterpolationPaths) -> Any:
    order = [_panel(align) for align in paths.alignments]
    return panels(chart.properties(width=_SIDE, height=_SIDE), "panel", order, len(order))


def _kin_color(paths: InterpolationPaths) -> alt.Color:
    return categories("kin", [kin.name for kin in paths.kin], labelLimit=320, columns=3)
