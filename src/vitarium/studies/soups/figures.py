"""Figures of what comes of combining models."""

from collections.abc import Sequence
from typing import Any

import altair as alt

from vitarium.studies.report.figures import HEIGHT, PALETTE, WIDTH, Figure, data
from vitarium.studies.soups.estimates import gain
from vitarium.studies.soups.groups import Group
from vitarium.studies.soups.results import (
    BEST,
    ENSEMBLE,
    GREEDY,
    MEAN,
    UNIFORM,
    EpochGain,
    Results,
    label,
)
from vitarium.studies.statistics.bootstrap import Bootstrap
from vitarium.studies.statistics.population import Stage

_MOST_GROUPS = 18
"""Of which a figure shows each."""
_OF = {MEAN: "reference", ENSEMBLE: "reference"}
_KINDS = ["reference", "soup or merge", "after alignment"]
_ZERO: dict[str, Any] = {"color": "#8b95a3", "strokeDash": [4, 3]}
_POINTS = "datum.value > 0 ? '+' + format(datum.value, '.1f') : format(datum.value, '.1f')"


def methods(stage: Stage, results: Results, bootstrap: Bootstrap, split: str) -> Figure | None:
    """Each method against the best single model, a panel per group of siblings."""
    groups = results.groups("family", "mixed")
    shown = groups[:_MOST_GROUPS]
    rows: list[dict[str, Any]] = []
    order: list[str] = []
    for group in shown:
        best = results.get(group, BEST)
        if best is None:
            continue
        for result in results.of(group):
            if result.method == BEST:
                continue
            found = gain(bootstrap, [(result.scores, best.scores)])
            kind = "after alignment" if result.align else _OF.get(result.method, _KINDS[1])
            order.append(result.label)
            rows.append(
                {
                    "group": _panel(group, best.scores.accuracy),
                    "method": result.label,
                    "kind": kind,
                    "gain": 100 * found.value,
                    "low": None if found.low is None else 100 * found.low,
                    "high": None if found.high is None else 100 * found.high,
                    "accuracy": result.scores.accuracy,
                    "heads": result.heads,
                    "models": result.count,
                }
            )
    if not rows:
        return None
    y = alt.Y("method:N", sort=_order(order), axis=alt.Axis(title=None, labelLimit=260))
    axis = alt.Axis(title="points against the best single model", labelExpr=_POINTS, tickCount=4)
    scale = alt.Scale(domain=_window([row["gain"] for row in rows]), clamp=True, nice=False)
    x = alt.X("gain:Q", axis=axis, scale=scale)
    told = [
        alt.Tooltip("method:N"),
        alt.Tooltip("accuracy:Q", format=".2%", title=f"{split} accuracy"),
        alt.Tooltip("gain:Q", format="+.2f", title="points"),
        alt.Tooltip("low:Q", format="+.2f"),
        alt.Tooltip("high:Q", format="+.2f"),
        alt.Tooltip("models:Q"),
        alt.Tooltip("heads:N"),
    ]
    colour = alt.Color(
        "kind:N",
        sort=_KINDS,
        scale=alt.Scale(domain=_KINDS, range=["#8b95a3", PALETTE[0], PALETTE[1]]),
        legend=alt.Legend(title=None, orient="top", symbolType="circle"),
    )
    base = alt.Chart()
    zero = base.transform_calculate(zero="0").mark_rule(**_ZERO).encode(x=alt.X("zero:Q"))
    bars = base.mark_rule(strokeWidth=1.5).encode(
        x=alt.X("low:Q", scale=scale, axis=axis), x2="high:Q", y=y, color=colour
    )
    dots = base.mark_circle(size=62, opacity=1).encode(x=x, y=y, color=colour, tooltip=told)
    chart = (
        alt.layer(zero, bars, dots, data=data(rows))
        .properties(width=215, height=alt.Step(17))
        .facet(
            facet=alt.Facet(
                "group:N",
                sort=list(dict.fromkeys(row["group"] for row in rows)),
                header=alt.Header(title=None, labelFontSize=11.5, labelFontWeight=600),
            ),
            columns=3 if len({row["group"] for row in rows}) > 2 else 2,
        )
    )
    left = f" The first {len(shown)} of {len(groups)} groups." if len(groups) > len(shown) else ""
    return Figure(
        f"{stage.name}-methods",
        "Each method against the best single model",
        f"A panel per group: the {split} accuracy of each method, less that of the model that is "
        "best on the validation images (dashed). Lines: intervals of the bootstrap over test "
        f"images. What falls out of the panel stands at its edge.{left}",
        chart,
    )


def ingredients(stage: Stage, results: Results, split: str) -> Figure | None:
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
        {"group": one.group.name, "models": 1, "accuracy": one.scores.accuracy}
        for one in results.found
        if one.method == MEAN and one.group.name in names
    ]
    picked = alt.selection_point(name="picked", fields=["group"], bind="legend")
    colour = alt.Color(
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
    seen = alt.condition(picked, alt.value(1), alt.value(0.12))
    base = alt.Chart(data(rows))
    dash = alt.StrokeDash(
        "method:N",
        sort=[label(UNIFORM), label(GREEDY)],
        legend=alt.Legend(title=None, symbolType="stroke"),
    )
    told = [alt.Tooltip(f"{name}:N") for name in ("group", "method", "models")]
    told.append(alt.Tooltip("accuracy:Q", format=".2%"))
    lines = base.mark_line(strokeWidth=2).encode(
        x=x, y=y, color=colour, strokeDash=dash, strokeOpacity=seen
    )
    dots = base.mark_circle(size=45).encode(x=x, y=y, color=colour, opacity=seen, tooltip=told)
    means = (
        alt.Chart(data(singles))
        .mark_tick(thickness=2, size=12, orient="horizontal")
        .encode(x=x, y=y, color=colour, opacity=seen)
    )
    return Figure(
        f"{stage.name}-ingredients",
        "Accuracy against the number of models in the soup",
        "The best k models of a group by validation: all of them averaged (uniform), or those that "
        "do not lower the validation accuracy (greedy). Ticks at 1: the mean of the single models. "
        "Click a group in the legend to see it alone.",
        (lines + dots + means).add_params(picked).properties(width=WIDTH - 160, height=HEIGHT),
    )


def epochs(stage: Stage, gains: Sequence[EpochGain], bootstrap: Bootstrap) -> Figure | None:
    """What the average of the last epochs gains over the last one."""
    if not gains:
        return None
    several = len({one.method for one in gains}) > 1
    golden = (5**0.5 - 1) / 2  # multiples of it fall evenly, and never side by side
    rows, means = [], []
    for method, last in dict.fromkeys((one.method, one.last) for one in gains):
        some = [one for one in gains if (one.method, one.last) == (method, last)]
        what = f"{label(method)}, last {last}" if several else f"last {last}"
        for place, one in enumerate(some):
            rows.append(
                {
                    "what": what,
                    "model": one.model[:8],
                    "gain": 100 * one.gain,
                    "place": place * golden % 1,
                }
            )
        found = gain(bootstrap, [(one.averaged, one.alone) for one in some])
        ends = {"low": found.low, "high": found.high}
        scaled = {key: None if end is None else 100 * end for key, end in ends.items()}
        means.append({"what": what, "gain": 100 * found.value, **scaled})
    y = alt.Y("what:N", sort=None, axis=alt.Axis(title="epochs that are averaged"))
    axis = alt.Axis(title="points against the last epoch", labelExpr=_POINTS, tickCount=8)
    x = alt.X("gain:Q", axis=axis)
    dots = (
        alt.Chart(data(rows))
        .mark_circle(size=40, opacity=0.55, color=PALETTE[0])
        .encode(
            x=x,
            y=y,
            yOffset=alt.YOffset("place:Q", scale=alt.Scale(domain=[-0.6, 1.6])),
            tooltip=[alt.Tooltip("model:N"), alt.Tooltip("gain:Q", format="+.2f")],
        )
    )
    mean = alt.Chart(data(means))
    bars = mean.mark_rule(strokeWidth=3, color=PALETTE[1]).encode(x="low:Q", x2="high:Q", y=y)
    centre = mean.mark_point(
        shape="diamond", size=130, filled=True, color=PALETTE[1], opacity=1
    ).encode(x=x, y=y, tooltip=[alt.Tooltip("gain:Q", format="+.3f", title="mean")])
    zero = alt.Chart(data([{"zero": 0}])).mark_rule(**_ZERO).encode(x="zero:Q")
    return Figure(
        f"{stage.name}-epoch-averages",
        "What averaging the last epochs gains",
        "A point per model: the accuracy of the mean of its last epochs' weights, less that of its "
        "last epoch alone. Orange: the mean over models, with its interval over test images.",
        alt.layer(zero, dots, bars, centre).properties(width=WIDTH - 120, height=alt.Step(46)),
    )


def _panel(group: Group, best: float) -> str:
    mixed = " · heads kept apart" if group.kind == "mixed" else ""
    return f"{group.name}{mixed} (best: {100 * best:.1f} %)"


def _order(labels: Sequence[str]) -> list[str]:
    """References at the ends, each method followed by itself after alignments."""
    known = list(dict.fromkeys(labels))
    rest = [name for name in known if name not in (MEAN, ENSEMBLE)]
    rest.sort(key=lambda name: " after " in name)
    return [name for name in (MEAN, *rest, ENSEMBLE) if name in known]


def _window(gains: Sequence[float]) -> list[float]:
    """Wide enough for most; a method that fails altogether would hide what differs by a point."""
    low = min((g for g in gains if g > -15), default=-15.0)
    high = max(gains, default=0.0)
    room = max(0.08 * (high - low), 0.3)
    return [max(low - room, -15.0), max(high, 0.0) + room]
