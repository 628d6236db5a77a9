"""Figures of what comes of combining models, and of the loss between models."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import altair as alt
import numpy as np

from vitarium.studies.report import figures as plot
from vitarium.studies.report.matrices import matrix_figure
from vitarium.studies.report.texts import Texts
from vitarium.studies.soups.barriers import BEFORE, DIFFERENT, Barriers, InterpolationPath
from vitarium.studies.soups.experiments import (
    ENSEMBLE,
    GREEDY,
    MEAN,
    UNIFORM,
    MergeResult,
    MergeResults,
    label,
)
from vitarium.studies.statistics.bootstrap import Estimate
from vitarium.studies.statistics.factors import Factor

texts = Texts("soups", "figures")
_MAX_GROUPS = 18  # groups that a figure shows
_SIDE = 235  # of a panel, in pixels
_LOWEST_GAIN = -15.0  # points; a method that fails altogether would hide what differs by a point
_KINDS = ["reference", "soup or merge", "after alignment"]
_POINTS = "datum.value > 0 ? '+' + format(datum.value, '.1f') : format(datum.value, '.1f')"


def points(estimate: Estimate, prefix: str = "") -> dict[str, float | None]:
    """A gain of accuracy in points: `gain`, `low` and `high`."""
    bounds = {f"{prefix}low": estimate.low, f"{prefix}high": estimate.high}
    scaled = {name: None if bound is None else 100 * bound for name, bound in bounds.items()}
    return {"gain": 100 * estimate.value, **scaled}


def methods(stage: str, results: MergeResults) -> plot.Figure | None:
    """Each method against the best single model, a panel per group of siblings."""
    groups = results.groups("family", "mixed")
    rows: list[dict[str, Any]] = []
    for group in groups[:_MAX_GROUPS]:
        best, *others = results.by_group[group].values()
        mixed = " · heads kept apart" if group.kind == "mixed" else ""
        for result in others:
            kind = "reference" if result.method in (MEAN, ENSEMBLE) else "soup or merge"
            row = {
                "group": f"{group.name}{mixed} (best: {100 * best.scores.accuracy:.1f} %)",
                "method": result.label,
                "kind": "after alignment" if result.align else kind,
                **points(results.gain([(result.scores, best.scores)])),
                "accuracy": result.scores.accuracy,
                "heads": result.heads,
                "models": result.count,
            }
            rows.append(row)
    if not rows:
        return None
    # references at the ends, each method followed by itself after alignments
    order = sorted(
        dict.fromkeys(row["method"] for row in rows),
        key=lambda name: (name != MEAN, name == ENSEMBLE, " after " in name),
    )
    y = alt.Y("method:N", sort=order, axis=alt.Axis(title=None, labelLimit=260))
    axis = alt.Axis(title="points against the best single model", labelExpr=_POINTS, tickCount=4)
    scale = alt.Scale(domain=_window([row["gain"] for row in rows]), clamp=True, nice=False)
    tips = [
        "method:N",
        alt.Tooltip("accuracy:Q", format=".2%", title=f"{results.split} accuracy"),
        alt.Tooltip("gain:Q", format="+.2f", title="points"),
        *(alt.Tooltip(f"{bound}:Q", format="+.2f") for bound in ("low", "high")),
        *("models:Q", "heads:N"),
    ]
    color = plot.categories("kind", _KINDS, [plot.LINE, plot.PALETTE[0], plot.PALETTE[1]])
    base = alt.Chart()
    zero = base.transform_calculate(zero="0").mark_rule(color=plot.LINE, strokeDash=[4, 3])
    low, gain = (alt.X(f"{name}:Q", axis=axis, scale=scale) for name in ("low", "gain"))
    bars = base.mark_rule(strokeWidth=1.5).encode(x=low, x2="high:Q", y=y, color=color)
    dots = base.mark_circle(size=62, opacity=1).encode(x=gain, y=y, color=color, tooltip=tips)
    chart = alt.layer(zero.encode(x="zero:Q"), bars, dots, data=plot.data(rows))
    chart = chart.properties(width=215, height=alt.Step(17))
    names = list(dict.fromkeys(row["group"] for row in rows))
    panels = plot.panels(chart, "group", names, 3 if len(names) > 2 else 2)
    cut = texts("methods_cut", shown=_MAX_GROUPS, groups=len(groups))
    note = cut if len(groups) > _MAX_GROUPS else ""
    return texts.figure("methods", f"{stage}-methods", panels, split=results.split, note=note)


def _window(gains: Sequence[float]) -> list[float]:
    """Wide enough for most."""
    low = min((gain for gain in gains if gain > _LOWEST_GAIN), default=_LOWEST_GAIN)
    high = max(gains, default=0.0)
    margin = max(0.08 * (high - low), 0.3)
    return [max(low - margin, _LOWEST_GAIN), max(high, 0.0) + margin]


def ingredients(stage: str, results: MergeResults) -> plot.Figure | None:
    if max((result.count for result in results.curves), default=0) < 2:
        return None

    def cells(result: MergeResult, **cells: Any) -> dict[str, Any]:
        return {"group": result.group.name, **cells, "accuracy": result.scores.accuracy}

    rows = [cells(r, method=label(r.method), models=r.count) for r in results.curves]
    names = list(dict.fromkeys(row["group"] for row in rows))
    groups = dict.fromkeys(result.group for result in results.curves)
    singles = [cells(results.by_group[group][MEAN, ""], models=1) for group in groups]
    click = alt.selection_point(name="picked", fields=["group"], bind="legend")
    visible = alt.condition(click, alt.value(1), alt.value(0.12))
    stroke = alt.Legend(title=None, symbolType="stroke")
    dash = alt.StrokeDash("method:N", sort=[label(UNIFORM), label(GREEDY)], legend=stroke)
    counts = sorted({result.count for result in results.curves})
    ticks = alt.Axis(title="models in the soup, best first", values=counts, format="d")
    title = alt.Axis(title=f"{results.split} accuracy", format=".3~%")
    key = alt.Legend(title=None, symbolType="stroke", labelLimit=240)
    palette = alt.Scale(range=plot.PALETTE)
    places: dict[str, Any] = {
        "x": alt.X("models:Q", axis=ticks),
        "y": alt.Y("accuracy:Q", scale=alt.Scale(zero=False), axis=title),
        "color": alt.Color("group:N", sort=names, scale=palette, legend=key),
    }
    tips = ["group:N", "method:N", "models:N", alt.Tooltip("accuracy:Q", format=".2%")]
    base, means = alt.Chart(plot.data(rows)), alt.Chart(plot.data(singles))
    lines = base.mark_line(strokeWidth=2).encode(**places, strokeDash=dash, strokeOpacity=visible)
    dots = base.mark_circle(size=45).encode(**places, opacity=visible, tooltip=tips)
    dashes = means.mark_tick(thickness=2, size=12, orient="horizontal")
    chart = lines + dots + dashes.encode(**places, opacity=visible)
    chart = chart.add_params(click).properties(width=plot.WIDTH - 160, height=plot.HEIGHT)
    return texts.figure("ingredients", f"{stage}-ingredients", chart)


def epochs(stage: str, results: MergeResults) -> plot.Figure | None:
    if not results.epochs:
        return None
    several = len({method for method, _ in results.epochs}) > 1
    rows, means = list[dict[str, Any]](), list[dict[str, Any]]()
    for (method, last), gains in results.epochs.items():
        name = f"{label(method)}, last {last}" if several else f"last {last}"
        for number, model in enumerate(gains):
            point = {"what": name, "model": model.model[:8], "gain": 100 * model.gain}
            rows.append({**point, "jitter": number * plot.GOLDEN % 1})
        mean = results.gain((model.averaged, model.single) for model in gains)
        means.append({"what": name, **points(mean)})
    rule = alt.Chart(plot.data([{"zero": 0}])).mark_rule(color=plot.LINE, strokeDash=[4, 3])
    chart = plot.points_with_means(
        rows,
        means,
        "gain",
        alt.Axis(title="points against the last epoch", labelExpr=_POINTS, tickCount=8),
        alt.Y("what:N", sort=None, axis=alt.Axis(title="epochs that are averaged")),
        offset=alt.YOffset("jitter:Q", scale=alt.Scale(domain=[-0.6, 1.6])),
        tooltip=["model:N", alt.Tooltip("gain:Q", format="+.2f")],
        mean_tooltip=[alt.Tooltip("gain:Q", format="+.3f", title="mean")],
    )
    chart = alt.layer(rule.encode(x="zero:Q"), chart)
    chart = chart.properties(width=plot.WIDTH - 120, height=alt.Step(46))
    return texts.figure("epochs", f"{stage}-epoch-averages", chart)


def barrier_curves(barriers: Barriers) -> plot.Figure | None:
    """The loss on the way from one model to another, a panel per alignment."""
    if not barriers.paths:
        return None
    rows = [
        {"t": t, "rise": float(rise), **_cells(path, "to")}
        for path in barriers.paths
        for t, rise in zip(path.t, path.rise, strict=True)
    ]
    click = alt.selection_point(name="picked", fields=["kin"], bind="legend")

    def opacity(visible: float, faint: float) -> Any:
        return alt.condition(click, alt.value(visible), alt.value(faint))

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
    panels = _panels(alt.layer(thin, thick, data=plot.data(rows)), barriers).add_params(click)
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
    tips = ["pair:N", alt.Tooltip("kin:N", title="models")]
    tips += [alt.Tooltip(f"{when}:Q", format=".3f") for when in ("before", "after")]
    dots = base.mark_circle(size=55, opacity=0.75).encode(
        x=alt.X("before:Q", scale=scale, axis=alt.Axis(title="barrier before (nats)")),
        y=alt.Y("after:Q", scale=scale, axis=alt.Axis(title="barrier after (nats)")),
        color=_kin_color(barriers),
        tooltip=tips,
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
