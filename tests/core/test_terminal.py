"""The terminal, on which a text is a text."""

import io

import pytest
from rich.progress import Progress

from vitarium.core.terminal import NameColumn, Terminal, print_line

HOSTILE = "\x1b]0;title\x07[bold]b[/bold][/] [link=https://x]y[/link] :bomb: \x9b31m\u202e{0}"
SHOWN = r"\x1b]0;title\x07[bold]b[/bold][/] [link=https://x]y[/link] :bomb: \x9b31m\u202e{0}"


@pytest.fixture
def terminal():
    return Terminal(file=io.StringIO(), force_terminal=True, color_system=None, width=200)


def test_nothing_in_a_text_is_a_command(terminal):
    terminal.print(HOSTILE, "two\nlines", style="red")
    assert terminal.file.getvalue() == f"{SHOWN} two\nlines\n"


def test_nor_in_the_name_of_a_bar(terminal):
    progress = Progress(NameColumn("{task.description}|{task.fields[note]}"), console=terminal)
    progress.add_task(HOSTILE, note="[dim]two\nlines")
    terminal.print(progress.get_renderable())
    assert terminal.file.getvalue().strip() == f"{SHOWN}|[dim]two lines"


def test_a_line_is_printed_as_it_is(capsys):
    print_line(f"{HOSTILE} {'x' * 500}")
    assert capsys.readouterr().out == f"{SHOWN} {'x' * 500}\n"
