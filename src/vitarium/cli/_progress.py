"""The one progress bar of the command line, and what is said when a long task is stopped."""

from collections.abc import Iterator
from contextlib import contextmanager

import rich.progress
import typer
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TimeRemainingColumn

from vitarium.core.progress import Progress
from vitarium.core.terminal import NameColumn, Terminal, print_note

_MAX_LENGTH = 48
"""Characters of a task's name; of a longer one the end is shown, which tells paths apart."""


@contextmanager
def progress_bar(task: str = "", *, unit: str = "", transient: bool = False) -> Iterator[Progress]:
    """A bar on standard error where that is a terminal; `task` is shown before the first step."""
    columns = (
        NameColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        NameColumn(unit),
        TimeRemainingColumn(),
    )
    console = Terminal(stderr=True)
    with rich.progress.Progress(
        *columns, console=console, transient=transient, disable=not console.is_terminal
    ) as bars:
        yield _Bar(bars, bars.add_task(task[-_MAX_LENGTH:], total=None))


class _Bar:
    def __init__(self, bars: rich.progress.Progress, bar: TaskID) -> None:
        self.bars, self.bar = bars, bar

    def step(self, task: str, done: int, total: int) -> None:
        self.bars.update(self.bar, description=task[-_MAX_LENGTH:], completed=done, total=total)


@contextmanager
def resumable(state: str) -> Iterator[None]:
    """Inside, Ctrl-C ends the command with what is kept, and status 130."""
    try:
        yield
    except KeyboardInterrupt:
        print_note(f"\nStopped. {state}; run the same command to resume.", style="yellow")
        raise typer.Exit(130) from None
