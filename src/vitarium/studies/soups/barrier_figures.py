"""Figures of the loss between models: barriers by kinship, by lineage, and after alignment."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import altair as alt
import numpy as np

from vitarium.studies.report import figures as plot
from vitarium.studies.report.matrices import matrix_figure
from vitarium.studies.soups.barriers import BEFORE, DIFFERENT, Barriers, InterpolationPath
from vitarium.studies.soups.figures import points, texts
from vitarium.studies.statistics.factors import Factor

_SIDE = 235  # of a panel, in pixels


def curves(barriers: Barriers) -> plot.Figure | None:
    """The loss on the way from one model to another, a panel per alignment."""
    if not barriers.paths:
        return None
    rows = [
        {"t": t, "rise": float(rise), **_cells(path, "to")}
        for path in barriers.paths
        for t, rise in zip(path.t, path.rise, strict=True)
    ]
    legend_click = alt.selection_point(name="picked", fields=["kin"], bind="legend")

    def opacity(visible: float, faint: float) -> Any:
        return alt.condition(legend_click, alt.value(visible), alt.value(faint))

    rise = "rise of the loss (nats)"
    x = alt.X("t:Q", axis=alt.Axis(title="way from one model to the other", format=".1f"))
    color, base = _kin_color(barriers), alt.Chart()
    thin = base.mark_line(strokeWidth=1).encode(
        x=x,
        y=alt.Y("rise:Q", axis=alt.Axis(title=rise)),
        detail="pair:N",
        color=color,
        strokeOpacity=opacity(0.35 if len(barriers.paths) <= 60 else 0.14, 0.02),
    )
    thick = base.mark_line(strokeWidth=3.5).encode(
        x=x,
        y=alt.Y("mean(rise):Q", title=rise),
        color=color,
        strokeOpacity=opacity(1, 0.05),
        tooltip=[alt.Tooltip("kin:N", title="models"), alt.Tooltip("mean(rise):Q", format=".3f")],
    )
    panels = _panels(alt.layer(thin, thick, data=plot.data(rows)), barriers)
    panels = panels.add_params(legend_click)
    return texts.figure("curves", f"{barriers.stage.name}-barrier-curves", panels)


def heat_maps(barriers: Barriers) -> Iterator[plot.Figure]:
    """Barriers of pairs by lineage, before and after each alignment, on one scale."""
    stage = barriers.stage
    matrices = {align: heights for align, (heights, _) in barriers.matrices.items()}
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


def before_and_after(barriers: Barriers) -> plot.Figure | None:
    before = {(path.first, path.second): path.barrier for path in barriers.of(BEFORE)}
    rows: list[dict[str, Any]] = [
        {"before": before[path.first, path.second], "after": path.barrier, **_cells(path, "and")}
        for path in barriers.paths
        if path.align and (path.first, path.second) in before
    ]
    if not rows:
        return None
    top = 1.05 * max(max(row["before"], row["after"]) for row in rows) or 1.0
    scale = alt.Scale(domain=[0, top], nice=False)
    base = alt.Chart()
    ends = base.transform_aggregate(n="count()").transform_calculate(a="0", b=f"{top}")
    diagonal = ends.mark_rule(color=plot.LINE, strokeDash=[4, 3]).encode(
        x=alt.X("a:Q", scale=scale), y=alt.Y("a:Q", scale=scale), x2="b:Q", y2="b:Q"
    )
    dots = base.mark_circle(size=55, opacity=0.75).encode(
        x=alt.X("before:Q", scale=scale, axis=alt.Axis(title="barrier before (nats)")),
        y=alt.Y("after:Q", scale=scale, axis=alt.Axis(title="barrier after (nats)")),
        color=_kin_color(barriers),
        tooltip=[
            *("pair:N", alt.Tooltip("kin:N", title="models")),
            *(alt.Tooltip(f"{when}:Q", format=".3f") for when in ("before", "after")),
        ],
    )
    panels = _panels(alt.layer(diagonal, dots, data=plot.data(rows)), barriers)
    name = f"{barriers.stage.name}-barriers-before-and-after"
    return texts.figure("before_and_after", name, panels)


def siblings(barriers: Barriers, factor: Factor) -> plot.Figure | None:
    """Barriers and soups of siblings that share a value of a factor."""
    levels = barriers.means(barriers.siblings(factor))
    if len(levels) < 2:
        return None
    rows = []
    for path in barriers.of(BEFORE, barriers.kin[0].name):
        first, second = factor.labels[path.first], factor.labels[path.second]
        same = f"{factor.name} = {first}" if first == second else f"{DIFFERENT} {factor.name}"
        cells = {"level": same, "pair": _cells(path, "and")["pair"], "barrier": path.barrier}
        rows.append({**cells, "gain": 100 * path.soup_gain})
    means = []
    for name, _, barrier, gain in levels:
        height = {"barrier": barrier.value, "low": barrier.low, "high": barrier.high}
        means.append({"level": name, **height, **points(gain, "gain_")})

    def panel(column: str, prefix: str, title: str, axis: alt.Axis | None) -> Any:
        chart = plot.points_with_means(
            rows,
            means,
            column,
            alt.Axis(title=title, tickCount=5),
            alt.Y("level:N", sort=[level.name for level in levels], axis=axis),
            interval=(f"{prefix}low", f"{prefix}high"),
            tooltip=["pair:N", f"{column}:Q"],
        )
        return chart.properties(width=320, height=alt.Step(34))

    title = "points of their soup against their mean"
    labels = alt.Axis(title=None, labelLimit=220)
    halves = panel("barrier", "", "barrier (nats)", labels), panel("gain", "gain_", title, None)
    slug = factor.name.replace("_", "-").replace(".", "-")
    name = f"{barriers.stage.name}-siblings-by-{slug}"
    return texts.figure("siblings", name, alt.hconcat(*halves, spacing=26), factor=factor.name)


def _cells(path: InterpolationPath, word: str) -> dict[str, str]:
    pair = f"{path.first[:8]} {word} {path.second[:8]}"
    return {"kin": path.kin, "panel": _panel(path.align), "pair": pair}


def _panel(align: str) -> str:
    return f"after {align.replace('_', ' ')}" if align else "as they are"


def _panels(chart: Any, barriers: Barriers) -> Any:
    order = [_panel(align) for align in barriers.alignments]
    return plot.panels(chart.properties(width=_SIDE, height=_SIDE), "panel", order, len(order))


def _kin_color(barriers: Barriers) -> alt.Color:
    return plot.categories("kin", [kin.name for kin in barriers.kin], labelLimit=320, columns=3)
