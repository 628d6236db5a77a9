"""The report of any study: its tables, sentences and figures as one file that needs no network."""

import json
import re
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import quote

from vitarium.core.printable import escaped_json, printable
from vitarium.studies.report.tables import Sentences, Table, Tables


def html(tables: Tables, study: str = "") -> str:
    """The page, with the libraries that draw its figures inside; it says of which study it is."""
    from jinja2 import Environment
    from markupsafe import Markup

    def text(name: str) -> Any:
        return Markup((Path(__file__).parent / name).read_text(encoding="utf-8"))

    environment = Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        # before it is escaped; HTML is kept
        finalize=lambda value: value if isinstance(value, Markup) else printable(str(value)),
    )
    environment.filters["strong"] = strong
    environment.filters["anchor"] = lambda text: quote(printable(text), safe="")
    environment.tests["table"] = lambda blocks: isinstance(blocks[0], Table)
    environment.tests["sentences"] = lambda blocks: isinstance(blocks[0], Sentences)
    # blocks of one kind that follow each other: figures are set side by side
    environment.filters["by_kind"] = lambda blocks: [list(b) for _, b in groupby(blocks, type)]
    names, figures = tables.figure_names, tables.figures
    return environment.from_string(text("page.html")).render(
        page=tables,
        study=study,
        style=text("page.css"),
        script=text("page.js"),
        library=Markup(_library().replace("</script", r"<\/script")) if figures else "",
        names=names,
        specs=Markup(in_script({names[figure.name]: figure.spec for figure in figures})),
    )


def strong(text: str) -> Any:
    """`a **b** `c`` as HTML, everything else escaped."""
    from markupsafe import Markup, escape

    def tagged(match: re.Match[str]) -> str:
        return f"<b>{match[1]}</b>" if match[1] else f"<code>{match[2]}</code>"

    return Markup(re.sub(r"\*\*(.+?)\*\*|`(.+?)`", tagged, str(escape(printable(text)))))


def in_script(value: Any) -> str:
    """JSON that no text in it can end the script element of."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return escaped_json(text).replace("<", "\\u003c")


@cache
def _library() -> str:
    """Vega, Vega-Lite and Vega-Embed, as altair's version of Vega-Lite has them."""
    import vl_convert

    # without a snippet it sets window.vegaEmbed, which its type stub does not know
    return vl_convert.javascript_bundle()  # type: ignore[call-arg]
