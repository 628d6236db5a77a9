"""The words of a study's page, from `texts.toml` in its folder; names and numbers are filled in."""

import tomllib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from string import Formatter
from typing import Any

from vitarium.studies.report.figures import Figure
from vitarium.studies.report.tables import Table, frame_of
from vitarium.studies.report.text import FORMATS, Columns, listed, number, with_interval
from vitarium.studies.statistics.bootstrap import Estimate


class Texts(Formatter):
    """Texts by key, of one table of the file; a line break stands for a space.

    In a text, `{x}` is a value: `{x:fraction}` a number in that unit (see `text.Unit`), or an
    estimate with its interval, in brackets or after a comma (`{x:gain,}`); `{n:model|models}` the
    word for so many; a list is enumerated.
    """

    def __init__(self, study: str, part: str) -> None:
        self.path, self.part = Path(__file__).parent.parent / study / "texts.toml", part

    @cached_property
    def content(self) -> dict[str, Any]:
        return tomllib.loads(self.path.read_text(encoding="utf-8"))[self.part]

    def __call__(self, key: str, **values: Any) -> str:
        """Raises KeyError for a text or a value that is missing."""
        return self._filled(self.content[key], values)

    def lines(self, key: str, **values: Any) -> list[str]:
        """Of a list of texts."""
        return [self._filled(text, values) for text in self.content[key]]

    def figure(self, key: str, name: str, chart: Any, wide: bool = True, **values: Any) -> Figure:
        """With its title and its caption."""
        title, caption = self.lines(key, **values)
        return Figure(name, title, caption, chart, wide)

    def table(
        self, key: str, rows: Sequence[Any], columns: Columns | None = None, **looks: Any
    ) -> Table:
        """With its title, and its note if it has one; of rows by column, or of cells in the order
        of `columns`, whose units are given."""
        heading, note = [*self.lines(key), ""][:2]
        if columns is None:
            return Table.of(heading, rows, note, **looks)
        units = {name: unit for name, unit in columns.items() if unit}
        return Table(heading, frame_of(list(columns), rows), note, units, **looks)

    def format_field(self, value: Any, format_spec: str) -> str:
        unit: Any = format_spec.removesuffix(",")
        if isinstance(value, Estimate):
            return with_interval(value, unit, inside=unit != format_spec)
        if isinstance(value, list):
            return listed(value)
        if "|" in format_spec:
            return format_spec.split("|")[value != 1]
        return number(value, unit) if unit in FORMATS else format(value, format_spec)

    def _filled(self, text: str, values: Mapping[str, Any]) -> str:
        return self.vformat(text.replace("\n", " "), (), values)
