"""Print untrusted text: no escape sequences, no markup of rich, no emoji names."""

import sys
from typing import Any

from rich.console import Console
from rich.progress import Task, TextColumn
from rich.text import Text

from vitarium.core.printable import printable


class Terminal(Console):
    """A console that prints strings literally."""

    def __init__(self, **settings: Any) -> None:
        plain = {"markup": False, "emoji": False, "highlight": False}
        super().__init__(**{**plain, **settings})

    def render_str(self, text: str, **settings: Any) -> Text:
        return super().render_str(printable(text, newline="\n"), **settings)


class NameColumn(TextColumn):
    """A column of a progress bar that prints its text literally, on one line, cut where it ends."""

    def render(self, task: Task) -> Text:
        text = Text(printable(self.text_format.format(task=task)), self.style, justify=self.justify)
        text.no_wrap, text.overflow = True, "ellipsis"
        return text


def print_line(text: str = "") -> None:
    """Print text to standard output without wrapping it."""
    sys.stdout.write(printable(text, newline="\n") + "\n")


def print_note(text: str, style: str | None = None) -> None:
    """Print text to standard error without wrapping it."""
    Terminal(stderr=True, soft_wrap=True).print(text, style=style)
