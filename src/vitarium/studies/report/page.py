"""The report of any study: its tables, sentences and figures as one file that needs no network."""

import json
import re
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import quote

from vitarium.core.printable import escaped_json, printable
from vitarium.studies.report.tables import Section, Sentences, Table, Tables

_HERE = Path(__file__).parent


def html(tables: Tables) -> str:
    """The page, with the libraries that draw its figures inside."""
    from jinja2 import Environment
    from markupsafe import Markup

    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=_printable
    )
    environment.filters["strong"] = strong
    environment.filters["anchor"] = lambda text: quote(printable(text), safe="")
    environment.tests["table"] = lambda blocks: isinstance(blocks[0], Table)
    environment.tests["sentences"] = lambda blocks: isinstance(blocks[0], Sentences)
    names, figures = tables.figure_names, tables.figures
    return environment.from_string(_text("page.html")).render(
        page=tables,
        rows_of_blocks=_rows_of_blocks,
        style=Markup(_text("page.css")),
        script=Markup(_text("page.js")),
        library=Markup(_library().replace("</script", r"<\/script")) if figures else "",
        names=names,
        specs=Markup(in_script({names[figure.name]: figure.spec for figure in figures})),
    )


def _rows_of_blocks(section: Section) -> list[list[Any]]:
    """Blocks of one kind that follow each other: figures are set side by side."""
    return [list(blocks) for _, blocks in groupby(section.blocks, type)]


def strong(text: str) -> Any:
    """`a **b** `c`` as HTML, everything else escaped."""
    from markupsafe import Markup, escape

    marked = Markup("")
    for number, piece in enumerate(re.split(r"\*\*(.+?)\*\*|`(.+?)`", printable(text))):
        if piece is None:
            continue
        tag = ("", "b", "code")[number % 3]
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
