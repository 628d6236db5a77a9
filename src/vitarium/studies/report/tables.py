"""What a study gives back: named tables, with the sentences and figures made of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd

from vitarium.core.filenames import file_names
from vitarium.studies.report.figures import Figure
from vitarium.studies.report.text import Quantity, Unit, cell
from vitarium.studies.statistics.bootstrap import Estimate

UNFOLDED_ROWS = 30  # rows up to which a table of a page is unfolded at first


@dataclass(frozen=True, eq=False)
class Table:
    """A table of numbers, texts and estimates, and how they are shown.

    Args:
        data: rows by column; a cell may be an `Estimate`. Empty tables are not shown.
        units: of columns, see `text.Unit`; a cell without one is a number of three figures.
        folded: whether a page shows it folded; None: one of many rows.
        wrap: whether the last column has long texts.
    """

    title: str
    data: pd.DataFrame
    note: str = ""
    units: Mapping[str, Unit] = field(default_factory=dict)
    folded: bool | None = False
    wrap: bool = False

    @classmethod
    def of(
        cls, title: str, records: Sequence[Mapping[str, Any]], note: str = "", **settings: Any
    ) -> "Table":
        """Of rows by column; integers stay integers beside empty cells."""
        names = list(dict.fromkeys(name for record in records for name in record))
        cells = [[record.get(name) for name in names] for record in records]
        return cls(title, frame_of(names, cells), note, **settings)

    @property
    def columns(self) -> list[str]:
        return list(self.data.columns)

    @property
    def rows(self) -> list[list[str]]:
        """Every cell as a page shows it."""
        units = [self.units.get(name, "") for name in self.columns]
        records = self.data.itertuples(index=False, name=None)
        return [list(map(cell, record, units)) for record in records]

    @property
    def is_open(self) -> bool:
        return not (len(self.data) > UNFOLDED_ROWS if self.folded is None else self.folded)

    @property
    def frame(self) -> pd.DataFrame:
        """Numbers as numbers: of an estimate `column`, `column low` and `column high`."""
        columns: dict[str, list[Any]] = {}
        for name, column in self.data.items():
            cells = [value.number if isinstance(value, Quantity) else value for value in column]
            if any(isinstance(value, Estimate) for value in cells):
                for suffix, part in (("", "value"), (" low", "low"), (" high", "high")):
                    columns[f"{name}{suffix}"] = [
                        getattr(value, part, value if part == "value" else None) for value in cells
                    ]
            else:
                columns[str(name)] = list(cells)
        frame = frame_of(list(columns), list(zip(*columns.values(), strict=True)))
        for name in frame:
            if not any(isinstance(value, str) for value in frame[name]):
                frame[name] = pd.to_numeric(frame[name], errors="coerce")
        return frame


def frame_of(names: Sequence[str], cells: Sequence[Sequence[Any]]) -> pd.DataFrame:
    """Of cells row by row, as objects: a name need not be UTF-8, which pandas' texts have to be."""
    return pd.DataFrame(list(cells), columns=pd.Index(names, dtype=object), dtype=object)


@dataclass(frozen=True)
class Sentences:
    """A list of sentences; `**` stands around what matters."""

    lines: Sequence[str]


Block = Table | Sentences | Figure


@dataclass(frozen=True)
class Section:
    """A part of a page, with a line in its table of contents; blocks that are None are left out."""

    anchor: str
    title: str
    contents: Sequence[Block | None]
    lead: str = ""
    stage: str = ""  # that all its tables are about; empty: about the whole population

    @cached_property
    def blocks(self) -> list[Block]:
        """What there is to show: no empty table, no empty list of sentences."""
        blocks = [block for block in self.contents if block is not None]
        blocks = [block for block in blocks if not isinstance(block, Sentences) or block.lines]
        return [block for block in blocks if not isinstance(block, Table) or len(block.data)]


@dataclass(frozen=True, eq=False)
class Tables(Mapping[str, pd.DataFrame]):
    """What a study found: `tables["The stages"]` is a table by its title, as a DataFrame.

    Args:
        sections: the tables, with sentences and figures about them.
        lead: what the page is about, in a sentence or two.
        facts: a few numbers at the top, and what they are of.
        sentences: the findings in words, by stage; "" for those about the whole population.
        terminal: further lines for a terminal.
    """

    title: str
    sections: Sequence[Section]
    lead: str = ""
    facts: Sequence[tuple[str, str]] = ()
    sentences: Mapping[str, Sequence[str]] = field(default_factory=dict)
    terminal: Sequence[str] = ()

    @cached_property
    def frames(self) -> dict[str, pd.DataFrame]:
        """By title; tables of several stages are one, with a column `stage`."""
        parts: dict[str, list[pd.DataFrame]] = {}
        for section in self.sections:
            for table in section.blocks:
                if isinstance(table, Table):
                    parts.setdefault(table.title, []).append(table.frame)
                    if section.stage:
                        parts[table.title][-1].insert(0, "stage", section.stage, True)
        return {
            title: frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)
            for title, frames in parts.items()
        }

    def __getitem__(self, title: str) -> pd.DataFrame:
        return self.frames[title]

    def __iter__(self) -> Iterator[str]:
        return iter(self.frames)

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def figures(self) -> list[Figure]:
        return [b for section in self.sections for b in section.blocks if isinstance(b, Figure)]

    @property
    def figure_names(self) -> dict[str, str]:
        """Stems of the figures' files, by the figures' names."""
        return file_names(figure.name for figure in self.figures)
