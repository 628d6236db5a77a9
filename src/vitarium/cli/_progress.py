"""How far a long task is, on a terminal and elsewhere, and what remains of one that is stopped."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import rich.progress
import typer
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TimeRemainingColumn

from vitarium.core.errors import VitariumError
from vitarium.core.heartbeat import Heartbeat
from vitarium.core.numerals import duration
from vitarium.core.progress import SILENT, Progress
from vitarium.core.terminal import NameColumn, Terminal, print_note

_MAX_LENGTH = 48
"""Characters of a task's name; of a longer one the end is shown, which tells paths apart."""
RESUME = "run the same command to resume"
AGAIN = "run the same command again"


@contextmanager
def progress_bar(task: str = "", *, unit: str = "", transient: bool = False) -> Iterator[Progress]:
    """On standard error: a bar where that is a terminal, elsewhere a line now and then.

    `task` is shown before the first step. What takes less than seconds prints no line.
    """
    console = Terminal(stderr=True)
    if not console.is_terminal:
        lines = ProgressLines(task, unit)
        with Heartbeat(lambda seconds: print_note(lines.now(seconds))) as heartbeat:
            yield lines
        if heartbeat.beats:
            print_note(lines.end(heartbeat.seconds))
        return
    columns = (
        NameColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        NameColumn(unit),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with rich.progress.Progress(*columns, console=console, transient=transient) as bars:
        bar = _Bar(bars, bars.add_task(task[-_MAX_LENGTH:], total=None))
        try:
            yield bar
        except VitariumError:
            # nothing was done: the error alone stays on the screen
            bars.live.transient = transient or bars.tasks[0].total is None
            raise


class _Bar:
    def __init__(self, bars: rich.progress.Progress, bar: TaskID) -> None:
        self.bars, self.bar = bars, bar

    def step(self, task: str, done: int, total: int) -> None:
        self.bars.update(self.bar, description=task[-_MAX_LENGTH:], completed=done, total=total)


class ProgressLines:
    """Says in a line how far a task is."""

    def __init__(self, task: str, unit: str) -> None:
        self._title, self._task, self._unit = task, task or "working", unit
        self._done, self._total = 0, 0

    def step(self, task: str, done: int, total: int) -> None:
        self._task, self._done, self._total = task or self._task, done, total

    def now(self, seconds: float) -> str:
        """ "measuring: 12 of 40 models, after 2 min"."""
        count = f": {self._done:,} of {self._total:,} {self._unit}".rstrip() if self._total else ""
        return f"{self._task[-_MAX_LENGTH:]}{count}, after {duration(seconds)}"

    def end(self, seconds: float) -> str:
        """ "measuring: done in 7 min"."""
        return f"{(self._title or self._task)[-_MAX_LENGTH:]}: done in {duration(seconds)}"


class Tally:
    """Passes progress on, and says how much of a task was done."""

    def __init__(self, progress: Progress = SILENT) -> None:
        self.progress = progress
        self.done = self.total = 0

    def step(self, task: str, done: int, total: int) -> None:
        self.done, self.total = done, total
        self.progress.step(task, done, total)


@contextmanager
def resumable(state: str | Callable[[], str], then: str = RESUME) -> Iterator[None]:
    """Inside, Ctrl-C ends the command with what is kept and what to do, and status 130.

    Imports of large libraries stand inside, too: on a busy machine they take long.
    """
    try:
        yield
    except KeyboardInterrupt:
        reached = state if isinstance(state, str) else state()
        print_note(f"\nStopped. {reached}; {then}.", style="yellow")
        raise typer.Exit(130) from None
