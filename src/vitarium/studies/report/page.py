"""A page of sentences, tables and figures in one file that needs neither network nor server."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from vitarium.core.filenames import file_names
from vitarium.core.printable import escaped_json, printable
from vitarium.studies.report.figures import Figure

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Table:
    """Rows of texts; what begins with a number is sorted by it."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    open: bool = True
    """Whether it is unfolded at first."""
    wrap: bool = False
    """Whether the last column has long texts."""


@dataclass(frozen=True)
class Sentences:
    """A list of sentences; `**` stands around what matters."""

    said: Sequence[str]


@dataclass(frozen=True)
class Figures:
    """Figures, those that are not wide beside each other."""

    figures: Sequence[Figure]


Block = Table | Sentences | Figures


@dataclass(frozen=True)
class Section:
    """A part of a page, with a line in its table of contents."""

    anchor: str
    title: str
    blocks: Sequence[Block]
    lead: str = ""


@dataclass(frozen=True)
class Page:
    """A study's page."""

    title: str
    lead: str
    sections: Sequence[Section]
    foot: str = ""
    facts: Sequence[tuple[str, str]] = field(default_factory=tuple)
    """A few numbers at the top, and what they are of."""

    @property
    def figures(self) -> list[Figure]:
        return [
            figure
            for section in self.sections
            for block in section.blocks
            if isinstance(block, Figures)
            for figure in block.figures
        ]

    @property
    def figure_names(self) -> dict[str, str]:
        """What the files of figures are called, by the figures' names."""
        return file_names(figure.name for figure in self.figures)

    def html(self) -> str:
        """The page, with the libraries that draw its figures inside."""
        from jinja2 import Environment
        from markupsafe import Markup

        environment = Environment(
            autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=_printable
        )
        environment.filters["strong"] = strong
        environment.filters["anchor"] = lambda text: quote(printable(text), safe="")
        environment.tests["table"] = lambda block: isinstance(block, Table)
        environment.tests["sentences"] = lambda block: isinstance(block, Sentences)
        template = environment.from_string(_text("page.html"))
        names = self.figure_names
        return template.render(
            page=self,
            style=Markup(_text("page.css")),
            script=Markup(_text("page.js")),
            library=Markup(_library().replace("</script", r"<\/script")) if self.figures else "",
            names=names,
            specs=Markup(in_script({names[figure.name]: figure.spec for figure in self.figures})),
        )


def strong(text: str) -> Any:
    """`a **b** `c`` as HTML, everything else escaped."""
    from markupsafe import Markup, escape

    marked = Markup("")
    for place, piece in enumerate(re.split(r"\*\*(.+?)\*\*|`(.+?)`", printable(text))):
        if piece is None:
            continue
        tag = ("", "b", "code")[place % 3]
        marked += Markup(f"<{tag}>{{}}</{tag}>").format(piece) if tag else escape(piece)
    return marked


def in_script(value: Any) -> str:
    """JSON that no text in it can end the script element of."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return escaped_json(text).replace("<", "\\u003c")


def _printable(value: Any) -> Any:
    """Make text printable before it is escaped; HTML is kept."""
    from markupsafe import Markup

    return value if isinstance(value, Markup) else printable(str(value))


def _text(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


@cache
def _library() -> str:
    """Vega, Vega-Lite and Vega-Embed, as altair's version of Vega-Lite has them."""
    import vl_convert

    # without a snippet it sets window.vegaEmbed, which its type stub does not know
    bundle: str = vl_convert.javascript_bundle()  # type: ignore[call-arg]
    return bundle
