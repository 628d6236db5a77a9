"""Figures of what the factors of a stage explain, and how."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import altair as alt
import numpy as np

from vitarium.studies.factors.analysis import Analysis, Interaction, points_of
from vitarium.studies.factors.coding import Coded
from vitarium.studies.factors.data_amount import Equivalents
from vitarium.studies.factors.tables import value_text, worth
from vitarium.studies.report import figures as plot
from vitarium.studies.report.text import Unit, with_interval
from vitarium.studies.report.texts import Texts
from vitarium.studies.statistics.bootstrap import Estimate

texts = Texts("factors", "figures")
_KINDS = ["alone", "with interactions", "not explained"]
_COLORS = [plot.PALETTE[0], plot.PALETTE[5], plot.FAINT]
_CELLS = 9  # values of a continuous factor in a heat map
_WIDTH, _HEIGHT = 330, 220
_MAX_FACTORS, _MODELS = 20, "models"


def shares(analysis: Analysis, target: str) -> plot.Figure:
    """A bar per factor, and below them what none explains."""
    rows: list[dict[str, Any]] = []

    def add(name: str, kind: str, share: Estimate) -> None:
        bounds = {"low": share.low, "high": share.high}
        rows.append({"factor": name, "kind": kind, "share": share.value, **bounds})

    for effect in analysis.effects[:_MAX_FACTORS]:
        add(effect.factor.name, "alone", effect.share)
        if analysis.interactions:
            add(effect.factor.name, "with interactions", effect.total)
    surface = analysis.surface
    if surface.parents_freedom:
        add("parents beyond their factors", "not explained", surface.parents_share)
    add("all else", "not explained", surface.rest_share)
    if (seeds := surface.seeds_share) is not None:
        add("seeds (of all else)", "not explained", seeds)
    order = list(dict.fromkeys(row["factor"] for row in rows))
    kinds = [kind for kind in _KINDS if any(row["kind"] == kind for row in rows)]
    y = alt.Y("factor:N", sort=order, axis=alt.Axis(title=None, labelLimit=260))
    offset = alt.YOffset("kind:N", sort=kinds)
    percent = alt.Axis(title="share of the variance", format="%")
    scale = alt.Scale(domain=[0, 1])
    x, low = (alt.X(f"{column}:Q", scale=scale, axis=percent) for column in ("share", "low"))
    tips = [alt.Tooltip("factor:N"), alt.Tooltip("kind:N", title="share")]
    tips += [alt.Tooltip(f"{name}:Q", format=".1%") for name in ("share", "low", "high")]
    base = alt.Chart(plot.data(rows))
    color = plot.categories("kind", kinds, _COLORS)
    bars = base.mark_bar().encode(x=x, y=y, yOffset=offset, color=color, tooltip=tips)
    whiskers = base.mark_rule(strokeWidth=1.5, color=plot.PALETTE[9])
    whiskers = whiskers.encode(x=low, x2="high:Q", y=y, yOffset=offset)
    chart = (bars + whiskers).properties(width=520, height=alt.Step(15))
    return texts.figure("shares", "shares", chart, target=target)


def curve(analysis: Analysis, index: int, target: str, unit: Unit) -> plot.Figure:
    """The prediction over a factor with its band, and a point per model."""
    predicted = analysis.curve(index)
    factor = predicted.factor
    is_axis = _has_axis(factor)
    lines: list[dict[str, Any]] = [
        {"value": _position(factor, point), "predicted": estimate.value}
        | {"low": estimate.low, "high": estimate.high}
        for point, estimate in zip(predicted.points, predicted.predicted, strict=True)
    ]
    x = _across(factor)
    number_axis = plot.axis("accuracy" if unit == "fraction" else "", title=target)

    def y(column: str) -> alt.Y:
        return alt.Y(f"{column}:Q", scale=alt.Scale(zero=False), axis=number_axis)

    dots, models = _points(analysis, factor, x, y("target"), target)
    base, layers = alt.Chart(plot.data(lines)), [dots]
    if factor.is_continuous:
        band = base.mark_area(opacity=0.2, color=plot.ORANGE)
        layers.append(band.encode(x=x, y=y("low"), y2="high:Q"))
    else:
        rules = base.mark_rule(strokeWidth=3, color=plot.ORANGE)
        layers.append(rules.encode(x=x, y=y("low"), y2="high:Q"))
        marks = base.mark_point(shape="diamond", size=110, filled=True, color=plot.ORANGE)
        layers.append(marks.encode(x=x, y=y("predicted")))
    if is_axis:
        layers.append(base.mark_line(color=plot.ORANGE).encode(x=x, y=y("predicted")))
    chart = alt.layer(*layers).properties(width=_WIDTH, height=_HEIGHT)
    about = {"target": target, "factor": factor.name}
    figure = texts.figure("curve", f"by-{factor.name}", chart, wide=False, **about)
    return replace(figure, datasets={_MODELS: models})


def _points(analysis: Analysis, factor: Coded, x: alt.X, y: alt.Y, target: str) -> tuple[Any, Any]:
    """A point per model, and the rows of all; those without a number of a continuous factor have
    none."""
    observed = analysis.observed
    rows = [
        {"model": id[:8], "value": _position(factor, value), "shown": value_text(value)}
        | {"target": float(number), "jitter": place * plot.GOLDEN % 1}
        for place, (id, value, number) in enumerate(
            zip(observed.ids, factor.values, observed.target, strict=True)
        )
        if value is not None or not factor.is_continuous
    ]
    tips = [alt.Tooltip("model:N"), alt.Tooltip("shown:N", title=factor.name)]
    tips.append(alt.Tooltip("target:Q", title=target, format=".4~g"))
    dots = alt.Chart(alt.NamedData(_MODELS)).mark_circle(size=28, opacity=0.4, color=plot.BLUE)
    dots = dots.encode(x=x, y=y, tooltip=tips)
    if not _has_axis(factor):
        dots = dots.encode(xOffset=alt.XOffset("jitter:Q", scale=alt.Scale(domain=[-1, 2])))
    return dots, plot.plain(rows)


def _has_axis(factor: Coded) -> bool:
    """Whether its values are places on an axis of numbers."""
    return factor.is_continuous or (factor.is_numeric and None not in factor.levels)


def _position(factor: Coded, value: Any) -> float | str:
    return float(value) if _has_axis(factor) else value_text(value)


def _across(factor: Coded) -> alt.X:
    if _has_axis(factor):
        kind: Any = "log" if factor.is_log else "linear"
        scale = alt.Scale(type=kind, zero=False, nice=False, padding=12)
        looks: dict[str, Any] = {"labelOverlap": "greedy", "format": "~g"}
        if not factor.is_continuous:
            looks["values"] = [float(level) for level in factor.levels]
        return alt.X("value:Q", scale=scale, axis=alt.Axis(title=factor.name, **looks))
    names = [value_text(level) for level in factor.levels]
    angle = 0 if len(names) <= 4 else -30
    axis = alt.Axis(title=factor.name, labelLimit=160, labelAngle=angle)
    return alt.X("value:N", sort=names, axis=axis)


def pair(analysis: Analysis, interaction: Interaction, target: str, unit: Unit) -> plot.Figure:
    """The prediction over two factors as a heat map."""
    names = [factor.name for factor in analysis.factors]
    first, second = (names.index(factor.name) for factor in interaction.factors)
    across, down = (points_of(factor, _CELLS) for factor in interaction.factors)
    grid = [(a, b) for a in across for b in down]
    predicted = analysis.joint(first, second, grid) @ analysis.surface.coefficients
    rows = [
        {"first": value_text(a), "second": value_text(b), "predicted": float(value)}
        for (a, b), value in zip(grid, predicted, strict=True)
    ]
    percent = ".1%" if unit == "fraction" else ".3~g"
    axes = [alt.Axis(title=names[first], labelAngle=-30, grid=False)]
    axes.append(alt.Axis(title=names[second], labelLimit=160, grid=False))
    x = alt.X("first:N", sort=[value_text(a) for a in across], axis=axes[0])
    y = alt.Y("second:N", sort=[value_text(b) for b in down][::-1], axis=axes[1])
    legend = alt.Legend(title=None, format=percent)
    color = alt.Color("predicted:Q", scale=alt.Scale(scheme="viridis"), legend=legend)
    tips = [
        alt.Tooltip("first:N", title=names[first]),
        alt.Tooltip("second:N", title=names[second]),
    ]
    tips.append(alt.Tooltip("predicted:Q", title=target, format=".4~g"))
    chart = alt.Chart(plot.data(rows)).mark_rect().encode(x=x, y=y, color=color, tooltip=tips)
    chart = chart.properties(width=_WIDTH - 60, height=_HEIGHT)
    assert interaction.share is not None
    about = {"first": names[first], "second": names[second], "target": target}
    share = with_interval(interaction.share, "share")
    name = f"{names[first]}-and-{names[second]}"
    return texts.figure("pair", name, chart, wide=False, share=share, **about)


def equivalents(known: Equivalents) -> plot.Figure | None:
    """The equivalent data factor of each level, at each amount of data."""
    if not known.rows:
        return None
    rows = [_equivalent(row) for row in known.rows]
    order = list(dict.fromkeys(row["comparison"] for row in rows))
    amounts = list(dict.fromkeys(row["amount"] for row in rows))
    scale = alt.Scale(type="log", nice=False)
    axis = alt.Axis(title="equivalent data factor", format="~g")
    y = alt.Y("comparison:N", sort=order, axis=alt.Axis(title=None, labelLimit=260))
    offset = alt.YOffset("amount:N", sort=amounts)
    color = plot.categories("amount", amounts, title=known.data)
    base = alt.Chart(plot.data(rows))
    x, low = (alt.X(f"{column}:Q", scale=scale, axis=axis) for column in ("factor", "low"))
    rules = base.mark_rule(strokeWidth=2).encode(
        x=low, x2="high:Q", y=y, yOffset=offset, color=color
    )
    shapes = alt.Scale(
        domain=["inside", "more", "less"], range=["diamond", "triangle-right", "triangle-left"]
    )
    shape = alt.Shape("reached:N", scale=shapes, legend=None)
    tips = [alt.Tooltip(f"{name}:N") for name in ("comparison", "amount", "worth")]
    marks = base.mark_point(size=80, filled=True, opacity=1)
    marks = marks.encode(x=x, y=y, yOffset=offset, color=color, shape=shape, tooltip=tips)
    once = alt.Chart(plot.data([{"one": 1}])).mark_rule(color=plot.LINE, strokeDash=[4, 3])
    chart = once.encode(x=alt.X("one:Q", scale=scale, axis=axis)) + rules + marks
    chart = chart.properties(width=460, height=alt.Step(14))
    return texts.figure("equivalents", "equivalent-data", chart)


def _equivalent(row: Any) -> dict[str, Any]:
    smallest, largest = row.limits
    inside = [float(np.clip(v, smallest, largest)) for v in (row.factor, row.low, row.high)]
    reached = "more" if math.isinf(row.factor) else "inside" if row.factor else "less"
    return {
        "comparison": f"{row.name} = {row.level} (against {row.reference})",
        "amount": f"{row.amount:,.0f}",
        "worth": worth(row, row.factor),
        "reached": reached,
        **dict(zip(("factor", "low", "high"), inside, strict=True)),
    }


def curves(analysis: Analysis, target: str, unit: Unit) -> Sequence[plot.Figure]:
    """Of every factor, the most important first."""
    names = [factor.name for factor in analysis.factors]
    ordered = [effect.factor.name for effect in analysis.effects][:_MAX_FACTORS]
    return [curve(analysis, names.index(name), target, unit) for name in ordered]


def pairs(analysis: Analysis, target: str, unit: Unit, count: int = 4) -> Sequence[plot.Figure]:
    """Of the strongest interactions that are in the fit."""
    chosen = [i for i in analysis.interactions if i.share is not None and i.share.value > 0]
    return [pair(analysis, interaction, target, unit) for interaction in chosen[:count]]
