"""Each figure once, as a definition that is interactive in a page and an image on paper."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import altair as alt
import pandas as pd

from vitarium.core import files
from vitarium.core.filenames import file_name
from vitarium.core.printable import printable
from vitarium.studies.report.text import PERCENT, title
from vitarium.studies.statistics.factors import parts_of
from vitarium.studies.statistics.population import Stage

PALETTE = [
    "#3b6fb6",
    "#d9702b",
    "#3a9a6b",
    "#a25bb5",
    "#c9a227",
    "#4fb0c6",
    "#d1527f",
    "#7a6a5d",
    "#8aa33c",
    "#6b7280",
]
WIDTH, HEIGHT = 760, 320
"""Of a figure's panel, in pixels."""
MOST_VALUES = 20
"""Of a factor by which models can be coloured."""
CONFIG = {
    "background": "white",
    "font": "Helvetica, Arial, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "grid": True,
        "gridColor": "#eceef1",
        "domainColor": "#b9bec6",
        "tickColor": "#b9bec6",
    },
}
"""Of figures on paper; a page has its own, light and dark."""


@dataclass(frozen=True)
class Figure:
    """A figure with what to call its files, and what to say of it."""

    name: str
    title: str
    caption: str
    chart: Any
    """An altair chart."""
    wide: bool = True
    """Whether it takes a row of a page for itself."""
    named: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    """Rows that the chart has by name (`alt.NamedData`): altair copies and checks each value of
    rows that a chart holds, in every layer."""

    @property
    def spec(self) -> dict[str, Any]:
        """Vega-Lite, without looks."""
        made: dict[str, Any] = self.chart.to_dict()
        made.pop("config", None)
        if self.named:
            made["datasets"] = made.get("datasets", {}) | dict(self.named)
        return made

    def write(self, folder: Path, stem: str = "") -> list[Path]:
        """Write it as PNG and SVG; no browser is needed.

        Args:
            stem: of the file names; default: the name of the figure, made safe.

        Raises DiskFull, NotWritable.
        """
        import vl_convert

        stem = stem or file_name(self.name)
        png, svg = folder / f"{stem}.png", folder / f"{stem}.svg"
        spec = self.spec
        files.write(png, vl_convert.vegalite_to_png(spec, scale=2, config=CONFIG))
        files.write(svg, files.utf8(vl_convert.vegalite_to_svg(spec, config=CONFIG)))
        return [png, svg]


def data(rows: pd.DataFrame | Sequence[Mapping[str, Any]]) -> alt.InlineData:
    """Rows as JSON: numbers of five figures, nothing for NaN."""
    return alt.InlineData(
        values=plain(rows.to_dict("records") if isinstance(rows, pd.DataFrame) else rows)
    )


def plain(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The same, without what altair puts around it."""
    return [{key: _plain(value) for key, value in row.items()} for row in rows]


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    return value.item() if hasattr(value, "item") else value


class Colours:
    """What models can be coloured by, as columns `f0`, `f1`, ... with a menu to choose.

    Args:
        first: the factor that is chosen at first; None: the first there is.
    """

    def __init__(self, stage: Stage, first: str | None = None) -> None:
        self._names: dict[str, str] = {}
        table: dict[str, Any] = {"model": stage.ids, "id": [id[:8] for id in stage.ids]}
        for factor in stage.factors:
            if len(factor.values) <= MOST_VALUES:
                self._names[f"f{len(self._names)}"] = factor.name
                table[f"f{len(self._names) - 1}"] = factor.labels.tolist()
        accuracy = stage.models["accuracy"]
        if accuracy.nunique() > 3:
            self._names[f"f{len(self._names)}"] = "accuracy (quarters)"
            table[f"f{len(self._names) - 1}"] = parts_of(accuracy.round(4)).tolist()
        if not self._names:
            self._names["f0"] = "stage"
            table["f0"] = stage.name
        table |= {name: stage.values[name].tolist() for name in stage.values}
        table["accuracy"] = accuracy.tolist()
        self.table = pd.DataFrame(table)
        """A row per model: model, id, f0, ..., and its measures."""
        self.chosen = next((c for c, n in self._names.items() if n == first), "f0")

    @property
    def columns(self) -> list[str]:
        return list(self._names)

    @property
    def name(self) -> str:
        """Of what is chosen at first."""
        return self._names[self.chosen]

    def menu(self, title: str = "Coloured by ") -> alt.Parameter:
        names = list(self._names.values())
        menu = alt.binding_select(options=self.columns, labels=names, name=title)
        return alt.param(name="colour", value=self.chosen, bind=menu)

    def tooltip(self, *measures: str) -> list[alt.Tooltip]:
        told = [alt.Tooltip("id:N", title="model")]
        told += [alt.Tooltip(f"{column}:N", title=n) for column, n in self._names.items()]
        return told + [alt.Tooltip(f"{m}:Q", title=title(m), format=".4~g") for m in measures]


GROUP = "datum[colour]"
"""A model's value of what is chosen."""


def colour(legend: Literal["right", "top"] | None = "right") -> alt.Color:
    """By group, with a legend somewhere or none."""
    many = {"columns": 5} if legend == "top" else {}
    looks: dict[str, Any] = {
        "symbolType": "circle",
        "symbolOpacity": 1,
        "symbolStrokeWidth": 2,
        **many,
    }
    key = alt.Legend(title=None, orient=legend, **looks) if legend else None
    return alt.Color("group:N", scale=alt.Scale(range=PALETTE), legend=key)


def axis(measure: str, **settings: Any) -> alt.Axis:
    """In percent where people read a measure so."""
    if measure in PERCENT:
        settings.setdefault("format", ".3~%")
    return alt.Axis(title=settings.pop("title", title(measure)), **settings)
