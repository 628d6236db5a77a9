"""Each figure once, as a definition that is interactive in a page and an image on paper."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import altair as alt
import pandas as pd

from vitarium.core import files
from vitarium.core.filenames import file_name
from vitarium.core.printable import printable
from vitarium.studies.report.text import title, unit_of
from vitarium.studies.statistics.factors import parts_of
from vitarium.studies.statistics.stages import Stage

BLUE, ORANGE, GREEN, PURPLE = "#3b6fb6", "#d9702b", "#3a9a6b", "#a25bb5"
PALETTE = [BLUE, ORANGE, GREEN, PURPLE, "#c9a227", "#4fb0c6", "#d1527f", "#7a6a5d", "#8aa33c"]
PALETTE += ["#6b7280"]
LINE, SOFT, FAINT = "#8b95a3", "#7b8494", "#a9b1bd"
"""Of reference lines, of labels, and of what is not clear, on light and on dark pages."""
WIDTH, HEIGHT = 760, 320  # of a figure's panel, in pixels
GOLDEN = (5**0.5 - 1) / 2
"""Multiples of it fall evenly into the unit interval, and never side by side."""
MAX_COLORS = 20  # values of a factor by which models can be colored
GROUP = "datum[color]"  # Vega expression: a model's value of the factor that is chosen
_VIEW = {"background": "white", "font": "Helvetica, Arial, sans-serif", "view": {"stroke": None}}
_AXIS = {"grid": True, "gridColor": "#eceef1", "domainColor": "#b9bec6", "tickColor": "#b9bec6"}
CONFIG = {**_VIEW, "axis": _AXIS}  # of figures on paper; a page has its own, light and dark


@dataclass(frozen=True)
class Figure:
    """An altair chart with the name of its files, a title and a caption."""

    name: str
    title: str
    caption: str
    chart: Any
    wide: bool = True  # whether it takes a row of a page for itself
    datasets: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    """Rows that the chart has by name (`alt.NamedData`): altair copies and checks each value of
    rows that a chart holds, in every layer."""

    @property
    def spec(self) -> dict[str, Any]:
        """Vega-Lite, without looks."""
        spec: dict[str, Any] = self.chart.to_dict()
        spec.pop("config", None)
        if self.datasets:
            spec["datasets"] = spec.get("datasets", {}) | dict(self.datasets)
        return spec

    def write(self, folder: Path, stem: str = "") -> list[Path]:
        """Write it as PNG and SVG, named `stem` or like the figure; no browser is needed.

        Raises DiskFull, NotWritable.
        """
        import vl_convert

        stem, spec = stem or file_name(self.name), self.spec
        png, svg = folder / f"{stem}.png", folder / f"{stem}.svg"
        files.write(png, vl_convert.vegalite_to_png(spec, scale=2, config=CONFIG))
        files.write(svg, files.utf8(vl_convert.vegalite_to_svg(spec, config=CONFIG)))
        return [png, svg]


def data(rows: pd.DataFrame | Sequence[Mapping[str, Any]]) -> alt.InlineData:
    """Rows as JSON: numbers of five figures, nothing for NaN."""
    records = rows.to_dict("records") if isinstance(rows, pd.DataFrame) else rows
    return alt.InlineData(values=plain(records))


def plain(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The same, without what altair puts around it."""

    def json_value(value: Any) -> Any:
        if isinstance(value, str):
            return printable(value)
        if isinstance(value, float):
            return float(f"{value:.5g}") if math.isfinite(value) else None
        return value.item() if hasattr(value, "item") else value

    return [{key: json_value(value) for key, value in row.items()} for row in rows]


def axis(measure: str, **settings: Any) -> alt.Axis:
    """Titled by a measure; in percent where it is a fraction."""
    if unit_of(measure) == "fraction":
        settings.setdefault("format", ".3~%")
    return alt.Axis(title=settings.pop("title", title(measure)), **settings)


def bare_axes(
    across: Sequence[float], down: Sequence[float]
) -> tuple[Callable[[str], alt.X], Callable[[str], alt.Y]]:
    """What makes the channels x and y of columns, without axes, on these domains."""
    scales = [alt.Scale(domain=list(domain), nice=False) for domain in (across, down)]
    return (
        lambda column: alt.X(f"{column}:Q", scale=scales[0], axis=None),
        lambda column: alt.Y(f"{column}:Q", scale=scales[1], axis=None),
    )


def categories(
    column: str, domain: Sequence[str], colors: Sequence[str] = PALETTE, **settings: Any
) -> alt.Color:
    """Colors of a few named categories, with a legend above."""
    looks = {"title": None, "orient": "top", "symbolType": "circle", "symbolOpacity": 1}
    scale = alt.Scale(domain=list(domain), range=list(colors[: len(domain)]))
    legend = alt.Legend(**(looks | settings))
    return alt.Color(f"{column}:N", sort=list(domain), scale=scale, legend=legend)


def panels(chart: Any, column: str, order: Sequence[str], columns: int) -> Any:
    """A panel per value of a column, `columns` of them in a row."""
    header = alt.Header(title=None, labelFontSize=11.5, labelFontWeight=600)
    facet = alt.Facet(f"{column}:N", sort=list(order), header=header)
    return chart.facet(facet=facet, columns=columns)


def points_with_means(
    points: Sequence[Mapping[str, Any]],
    means: Sequence[Mapping[str, Any]],
    column: str,
    axis: alt.Axis,
    y: alt.Y,
    *,
    interval: tuple[str, str] = ("low", "high"),
    tooltip: Sequence[Any],
    offset: alt.YOffset | None = None,
    mean_tooltip: Sequence[Any] = (),
) -> Any:
    """A row of points per category, and in orange their mean with its interval."""
    x = alt.X(f"{column}:Q", axis=axis)
    low, high = interval
    dots = alt.Chart(data(points)).mark_circle(size=45, opacity=0.5, color=BLUE)
    jitter = {} if offset is None else {"yOffset": offset}
    dots = dots.encode(x=x, y=y, tooltip=list(tooltip), **jitter)
    mean = alt.Chart(data(means))
    bars = mean.mark_rule(strokeWidth=3, color=ORANGE)
    bars = bars.encode(x=alt.X(f"{low}:Q", axis=axis), x2=f"{high}:Q", y=y)
    centers = mean.mark_point(shape="diamond", size=125, filled=True, color=ORANGE, opacity=1)
    return alt.layer(dots, bars, centers.encode(x=x, y=y, tooltip=list(mean_tooltip)))


class ModelColors:
    """Factors that models can be colored by: columns `f0`, `f1`, ..., and a menu, at `first`."""

    def __init__(self, stage: Stage, first: str | None = None) -> None:
        accuracy = stage.models["accuracy"]
        labels = {f.name: f.labels.tolist() for f in stage.factors if len(f.values) <= MAX_COLORS}
        columns: list[tuple[str, Any]] = list(labels.items())
        if accuracy.nunique() > 3:
            columns.append(("accuracy (quarters)", parts_of(accuracy.round(4)).tolist()))
        columns = columns or [("stage", stage.name)]
        self._names = {f"f{number}": name for number, (name, _) in enumerate(columns)}
        table: dict[str, Any] = {"model": stage.ids, "id": [id[:8] for id in stage.ids]}
        table |= {f"f{number}": values for number, (_, values) in enumerate(columns)}
        table |= {name: stage.values[name].tolist() for name in stage.values}
        self.table = pd.DataFrame(table | {"accuracy": accuracy.tolist()})
        """A row per model: model, id, f0, ..., and its measures."""
        self.chosen = next((c for c, n in self._names.items() if n == first), "f0")
        self.name = self._names[self.chosen]  # of the factor that is chosen at first
        self.legend_click = alt.selection_point(name="picked", fields=["group"], bind="legend")

    def lookup(self, *columns: str) -> alt.LookupData:
        """Each model's id, factors and further columns, for rows with a column `model`."""
        fields = ["id", *columns, *self._names]
        return alt.LookupData(data=data(self.table), key="model", fields=fields)

    def menu(self, title: str = "Colored by ") -> alt.Parameter:
        names = list(self._names.values())
        menu = alt.binding_select(options=list(self._names), labels=names, name=title)
        return alt.param(name="color", value=self.chosen, bind=menu)

    def when_picked(self, visible: float, faint: float) -> Any:
        """An opacity: of the group that was clicked in the legend, and of the others."""
        return alt.condition(self.legend_click, alt.value(visible), alt.value(faint))

    def tooltip(self, *measures: str) -> list[alt.Tooltip]:
        tips = [alt.Tooltip("id:N", title="model")]
        tips += [alt.Tooltip(f"{column}:N", title=n) for column, n in self._names.items()]
        return tips + [alt.Tooltip(f"{m}:Q", title=title(m), format=".4~g") for m in measures]


def group_color(legend: Literal["right", "top"] | None = "right") -> alt.Color:
    """By group, with a legend or none."""
    looks: dict[str, Any] = {"symbolType": "circle", "symbolOpacity": 1, "symbolStrokeWidth": 2}
    looks |= {"columns": 5} if legend == "top" else {}
    key = alt.Legend(title=None, orient=legend, **looks) if legend else None
    return alt.Color("group:N", scale=alt.Scale(range=PALETTE), legend=key)
