"""The tables and the picture of `twin_rates.py`.

Intervals of 95 % are Student's t over the originals; differences are taken original by original.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from architectures_table import Interval, interval

HEADER = ("method", "rate", "accuracy, %", "less the original", "less random", "FLOPs, %")


@dataclass(frozen=True)
class Row:
    """A method at a rate, on a task; accuracies by original."""

    task: str
    family: str
    label: str
    rate: float
    accuracy: Sequence[float] = ()
    operations: float | None = None
    """Of the original's, as a share."""
    refused: str = ""


@dataclass(frozen=True)
class Order:
    """What is published of two methods, and whether it appears at each rate that both have."""

    task: str
    claim: str
    rates: Mapping[str, Interval] = field(default_factory=dict)
    """By rate, accuracy of the method that is to be better, less that of the other."""

    @classmethod
    def of(cls, published: tuple[str, str, str], rows: Sequence[Row], task: str) -> "Order":
        claim, better, worse = published
        accuracies = {
            (row.label, row.rate): row.accuracy for row in rows if row.task == task and row.accuracy
        }
        rates = {
            f"{rate:g}": interval(np.subtract(accuracy, accuracies[worse, rate]))
            for (label, rate), accuracy in accuracies.items()
            if label == better and (worse, rate) in accuracies
        }
        return cls(task, claim, rates)


def verdict(difference: Interval) -> str:
    """Whether the interval lies above zero, below, or on both sides."""
    if difference.get("low", -1) > 0:
        return "yes"
    return "no" if difference.get("high", 1) < 0 else "not clear"


def markdown(rows: Sequence[Row], orders: Sequence[Order], random: Mapping[str, str]) -> str:
    """A table per task and family, and one of the orders."""
    lines: list[str] = []
    for task in dict.fromkeys(row.task for row in rows):
        listed = [row for row in rows if row.task == task]
        (original,) = (row for row in listed if row.label == "original")
        lines += ["", f"## {task}", "", f"Originals: {_percent(interval(original.accuracy))} %."]
        for family in dict.fromkeys(row.family for row in listed if row.family):
            lines += ["", f"### By {family}", "", _line(HEADER), _line(["---"] * len(HEADER))]
            lines += [
                _line(_cells(row, original, listed, random.get(row.label)))
                for row in listed
                if row.family == family
            ]
    if orders:
        header = ("published", "data", "rate", "difference in points", "appears")
        lines += ["", "## Published orders", "", _line(header), _line(["---"] * len(header))]
        lines += [
            _line((order.claim, order.task, rate, _percent(difference, "+"), verdict(difference)))
            for order in orders
            for rate, difference in order.rates.items()
        ]
    return "\n".join(lines).lstrip() + "\n"


def _cells(row: Row, original: Row, rows: Sequence[Row], random: str | None) -> list[str]:
    if row.refused:
        return [row.label, f"{row.rate:g}", row.refused, "", "", ""]
    cells = [row.label, f"{row.rate:g}", _percent(interval(row.accuracy))]
    cells.append(_percent(interval(np.subtract(row.accuracy, original.accuracy)), "+"))
    baseline = [r for r in rows if r.label == random and r.rate == row.rate and r.accuracy]
    differences = [interval(np.subtract(row.accuracy, r.accuracy)) for r in baseline]
    cells.append(_percent(differences[0], "+") if differences else "")
    return [*cells, "" if row.operations is None else f"{100 * row.operations:.0f}"]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _percent(value: Interval, sign: str = "") -> str:
    text = f"{100 * value['mean']:{sign}.1f}"
    if "low" not in value:
        return text
    return f"{text} [{100 * value['low']:{sign}.1f}, {100 * value['high']:{sign}.1f}]"


def picture(rows: Sequence[Row], path: Path) -> None:
    """Accuracy by rate, a panel per task and family; of patches by the share of operations."""
    import altair as alt
    import vl_convert

    points: list[dict[str, Any]] = []
    for row in rows:
        if row.family and row.accuracy:
            x = row.operations if row.family == "patches" else row.rate
            bounds = interval(row.accuracy)
            points.append({"task": row.task, "family": row.family, "method": row.label, "x": x})
            points[-1] |= {"low": bounds["mean"], "high": bounds["mean"], **bounds}
    base = alt.Chart(alt.InlineData(values=points))
    x = alt.X("x:Q", title="rate (patches: share of FLOPs)", scale=alt.Scale(zero=False))
    y = alt.Y("mean:Q", title="test accuracy", axis=alt.Axis(format="%"))
    color = alt.Color("method:N", title=None, scale=alt.Scale(scheme="tableau20"))
    lines = base.mark_line(point=True).encode(x=x, y=y, color=color)
    bars = base.mark_rule(opacity=0.5).encode(x=x, y="low:Q", y2="high:Q", color=color)
    panels = alt.layer(lines, bars).properties(width=230, height=170)
    chart = panels.facet(
        row=alt.Row("task:N", title=None), column=alt.Column("family:N", title=None)
    )
    chart = chart.resolve_scale(x="independent", y="independent")
    path.write_text(vl_convert.vegalite_to_svg(chart.to_dict()))
