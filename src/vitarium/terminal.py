"""The terminal, on which no text of a zoo, a table or a folder is more than a text."""

import sys
from typing import Any

from rich.console import Console
from rich.progress import Task, TextColumn
from rich.text import Text

from vitarium.printable import printable


class Terminal(Console):
    """Prints texts as they are: nothing in them is markup, the name of an emoji, or a command."""

    def __init__(self, **settings: Any) -> None:
        plain = {"markup": False, "emoji": False, "highlight": False}
        super().__init__(**{**plain, **settings})

    def render_str(self, text: str, **settings: Any) -> Text:
        return super().render_str(printable(text, newline="\n"), **settings)


class NameColumn(TextColumn):
    """What a bar of progress is of, on one line."""

    def render(self, task: Task) -> Text:
        return Text(printable(self.text_format.format(task=task)), self.style, justify=self.justify)


def print_line(text: str = "") -> None:
    """Print a text on standard output, whose lines may be as long as they are."""
    sys.stdout.write(printable(text, newline="\n") + "\n")
