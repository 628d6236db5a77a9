"""A zoo in a few lines of HTML, as notebooks show it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from vitarium.core.numerals import counted
from vitarium.core.printable import printable
from vitarium.zoo import _index as index
from vitarium.zoo.model import SCORES

_HEADINGS = ("stage", "models", "status", "test accuracy")


def zoo_html(zoo: Path) -> str:
    """A table with a row per stage: models, status, range of the last accuracy on test images."""
    models = index.rows(zoo)
    models = sorted(models, key=lambda model: (model["parent"] is not None, model["stage"]))
    count = counted(len(models), "model")
    by_stage: dict[str, list[Mapping[str, Any]]] = {}
    for model in models:
        by_stage.setdefault(model["stage"], []).append(model)
    title = f"<b>{_text(f'Zoo {zoo}: {count}')}</b>"
    rows = [_row("td", (stage, *_summary(group))) for stage, group in by_stage.items()]
    return f"{title}<table>{_row('th', _HEADINGS)}{''.join(rows)}</table>" if rows else title


def _row(tag: str, cells: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{_text(cell)}</{tag}>' for cell in cells)}</tr>"


def _text(text: str) -> str:
    return escape(printable(text))


def _summary(models: Sequence[Mapping[str, Any]]) -> tuple[str, str, str]:
    counts = Counter(model["status"] for model in models)
    only = next(iter(counts)) if len(counts) == 1 else ""
    status = only or ", ".join(f"{count} {status}" for status, count in counts.most_common())
    ranges = [
        _range([model[name] for model in models if model.get(name) is not None]) + suffix
        for name, suffix in zip(SCORES, ("", " (k-NN)", " (mAP)", " (k-NN mAP)"), strict=True)
        if any(model.get(name) is not None for model in models)
    ]
    return str(len(models)), status, ", ".join(ranges)


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.3f}", f"{max(values):.3f}"
    return low if low == high else f"{low} to {high}"
