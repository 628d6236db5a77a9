"""Figures of what comes of combining models."""

from collections.abc import Sequence
from typing import Any

import altair as alt

from vitarium.studies.report.figures import (
    GOLDEN,
    HEIGHT,
    LINE,
    PALETTE,
    WIDTH,
    Figure,
    categories,
    data,
    panels,
    points_with_means,
    zero_line,
)
from vitarium.studies.soups.estimates import gain
from vitarium.studies.soups.experiments import (
    BEST,
    ENSEMBLE,
    GREEDY,
    MEAN,
    UNIFORM,
    EpochGain,
    MergeResult,
    MergeResults,
    label,
)
from vitarium.studies.soups.groups import Group
from vitarium.studies.statistics.bootstrap import Bootstrap, Estimate
from vitarium.studies.statistics.stages import Stage

_MAX_GROUPS = 18
"""Groups that a figure shows."""
_LOWEST_GAIN = -15.0
"""Points; a method that fails altogether would hide what differs by a point."""
_KINDS = ["reference", "soup or merge", "after alignment"]
_POINTS = "datum.value > 0 ? '+' + format(datum.value, '.1f') : format(datum.value, '.1f')"


def points(estimate: Estimate, prefix: str = "") -> dict[str, float | None]:
    """A gain of accuracy in points: `gain`, `low` and `high`."""
    bounds = {f"{prefix}low": estimate.low, f"{prefix}high": estimate.high}
    scaled = {name: None if bound is None else 100 * bound for name, bound in bounds.items()}
    return {"gain": 100 * estimate.value, **scaled}


def methods(stage: Stage, results: MergeResults, bootstrap: Bootstrap, split: str) -> Figure | None:
    """Each method against the best single model, a panel per group of siblings."""
    groups = results.groups("family", "mixed")
    rows: list[dict[str, Any]] = []
    for group in groups[:_MAX_GROUPS]:
        best = results.get(group, BEST)
        for result in results.of(group) if best else ():
            if best and result.method != BEST:
                rows.append(
                    {
                        "group": _panel(group, best.scores.accuracy),
                        "method": result.label,
                        "kind": _kind(result),
                        **points(gain(bootstrap, [(result.scores, best.scores)])),
                        "accuracy": result.scores.accuracy,
                        "heads": result.heads,
                        "models": result.count,
                    }
                )
    if not rows:
        return None
    order = _order([row["method"] for row in rows])
    y = alt.Y("method:N", sort=order, axis=alt.Axis(title=None, labelLimit=260))
    axis = alt.Axis(title="points against the best single model", labelExpr=_POINTS, tickCount=4)
    scale = alt.Scale(domain=_window([row["gain"] for row in rows]), clamp=True, nice=False)
    x = alt.X("gain:Q", axis=axis, scale=scale)
    tips = [
        alt.Tooltip("method:N"),
        alt.Tooltip("accuracy:Q", format=".2%", title=f"{split} accuracy"),
        alt.Tooltip("gain:Q", format="+.2f", title="points"),
        alt.Tooltip("low:Q", format="+.2f"),
        alt.Tooltip("high:Q", format="+.2f"),
        alt.Tooltip("models:Q"),
        alt.Tooltip("heads:N"),
    ]
    color = categories("kind", _KINDS, [LINE, PALETTE[0], PALETTE[1]])
    base = alt.Chart()
    zero = base.transform_calculate(zero="0").mark_rule(color=LINE, strokeDash=[4, 3])
    bars = base.mark_rule(strokeWidth=1.5).encode(
        x=alt.X("low:Q", scale=scale, axis=axis), x2="high:Q", y=y, color=color
    )
    dots = base.mark_circle(size=62, opacity=1).encode(x=x, y=y, color=color, tooltip=tips)
    chart = alt.layer(zero.encode(x=alt.X("zero:Q")), bars, dots, data=data(rows))
    names = list(dict.fromkeys(row["group"] for row in rows))
    num_shown = min(len(groups), _MAX_GROUPS)
    note = f" The first {num_shown} of {len(groups)} groups." if len(groups) > num_shown else ""
    return Figure(
        f"{stage.name}-methods",
        "Each method against the best single model",
        f"A panel per group: the {split} accuracy of each method, less that of the model that is "
        "best on the validation images (dashed). Lines: intervals of the bootstrap over test "
        f"images. What falls out of the panel stands at its edge.{note}",
        panels(
            chart.properties(width=215, height=alt.Step(17)),
            "group",
            names,
            3 if len(names) > 2 else 2,
        ),
    )


def _kind(result: MergeResult) -> str:
    if result.align:
        return _KINDS[2]
    return _KINDS[0] if result.method in (MEAN, ENSEMBLE) else _KINDS[1]


def ingredients(stage: Stage, results: MergeResults, split: str) -> Figure | None:
    """Accuracy against how many models are in the soup."""
    rows: list[dict[str, Any]] = [
        {
            "group": result.group.name,
            "method": label(result.method),
            "models": result.count,
            "accuracy": result.scores.accuracy,
        }
        for result in results.curves
    ]
    if not rows or max(row["models"] for row in rows) < 2:
        return None
    names = list(dict.fromkeys(row["group"] for row in rows))
    singles = [
        {"group": result.group.name, "models": 1, "accuracy": result.scores.accuracy}
        for result in results.results
        if result.method == MEAN and result.group.name in names
    ]
    legend_click = alt.selection_point(name="picked", fields=["group"], bind="legend")
    color = alt.Color(
        "group:N",
        sort=names,
        scale=alt.Scale(range=PALETTE),
        legend=alt.Legend(title=None, symbolType="stroke", labelLimit=240),
    )
    counts = sorted({result.count for result in results.curves})
    ticks = alt.Axis(title="models in the soup, best first", values=counts, format="d")
    x = alt.X("models:Q", axis=ticks)
    y = alt.Y(
        "accuracy:Q",
        scale=alt.Scale(zero=False),
        axis=alt.Axis(title=f"{split} accuracy", format=".3~%"),
    )
    visible = alt.condition(legend_click, alt.value(1), alt.value(0.12))
    dash = alt.StrokeDash(
        "method:N",
        sort=[label(UNIFORM), label(GREEDY)],
        legend=alt.Legend(title=None, symbolType="stroke"),
    )
    tips = [alt.Tooltip(f"{name}:N") for name in ("group", "method", "models")]
    tips.append(alt.Tooltip("accuracy:Q", format=".2%"))
    base = alt.Chart(data(rows))
    lines = base.mark_line(strokeWidth=2).encode(
        x=x, y=y, color=color, strokeDash=dash, strokeOpacity=visible
    )
    dots = base.mark_circle(size=45).encode(x=x, y=y, color=color, opacity=visible, tooltip=tips)
    means = alt.Chart(data(singles)).mark_tick(thickness=2, size=12, orient="horizontal")
    chart = lines + dots + means.encode(x=x, y=y, color=color, opacity=visible)
    return Figure(
        f"{stage.name}-ingredients",
        "Accuracy against the number of models in the soup",
        "The best k models of a group by validation: all of them averaged (uniform), or those that "
        "do not lower the validation accuracy (greedy). Ticks at 1: the mean of the single models. "
        "Click a group in the legend to see it alone.",
        chart.add_params(legend_click).properties(width=WIDTH - 160, height=HEIGHT),
    )


def epochs(stage: Stage, results: MergeResults, bootstrap: Bootstrap) -> Figure | None:
    """What the average of the last epochs gains over the last one."""
    by_method = results.epochs_by_method()
    if not by_method:
        return None
    several = len({method for method, _ in by_method}) > 1
    rows: list[dict[str, Any]] = []
    means: list[dict[str, Any]] = []
    for (method, last), gains in by_method.items():
        name = f"{label(method)}, last {last}" if several else f"last {last}"
        rows += [_epoch_point(name, number, model) for number, model in enumerate(gains)]
        mean = gain(bootstrap, [(model.averaged, model.single) for model in gains])
        means.append({"what": name, **points(mean)})
    y = alt.Y("what:N", sort=None, axis=alt.Axis(title="epochs that are averaged"))
    axis = alt.Axis(title="points against the last epoch", labelExpr=_POINTS, tickCount=8)
    chart = points_with_means(
        rows,
        means,
        "gain",
        axis,
        y,
        offset=alt.YOffset("jitter:Q", scale=alt.Scale(domain=[-0.6, 1.6])),
        tooltip=[alt.Tooltip("model:N"), alt.Tooltip("gain:Q", format="+.2f")],
        mean_tooltip=[alt.Tooltip("gain:Q", format="+.3f", title="mean")],
    )
    return Figure(
        f"{stage.name}-epoch-averages",
        "What averaging the last epochs gains",
        "A point per model: the accuracy of the mean of its last epochs' weights, less that of its "
        "last epoch alone. Orange: the mean over models, with its interval over test images.",
        alt.layer(zero_line(), chart).properties(width=WIDTH - 120, height=alt.Step(46)),
    )


def _epoch_point(name: str, number: int, model: EpochGain) -> dict[str, Any]:
    jitter = number * GOLDEN % 1
    return {"what": name, "model": model.model[:8], "gain": 100 * model.gain, "jitter": jitter}


def _panel(group: Group, best: float) -> str:
    mixed = " · heads kept apart" if group.kind == "mixed" else ""
    return f"{group.name}{mixed} (best: {100 * best:.1f} %)"


def _order(labels: Sequence[str]) -> list[str]:
    """References at the ends, each method followed by itself after alignments."""
    unique = list(dict.fromkeys(labels))
    methods = [name for name in unique if name not in (MEAN, ENSEMBLE)]
    methods.sort(key=lambda name: " after " in name)
    return [name for name in (MEAN, *methods, ENSEMBLE) if name in unique]


def _window(gains: Sequence[float]) -> list[float]:
    """Wide enough for most."""
    low = min((gain for gain in gains if gain > _LOWEST_GAIN), default=_LOWEST_GAIN)
    high = max(gains, default=0.0)
    margin = max(0.08 * (high - low), 0.3)
    return [max(low - margin, _LOWEST_GAIN), max(high, 0.0) + margin]
