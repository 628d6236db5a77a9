"""Progress: bars on a terminal (all models, and each that is running), plain lines elsewhere."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column

from vitarium.blueprint import ModelSpec, Plan, flatten
from vitarium.core.terminal import NameColumn, Terminal
from vitarium.engine.events import (
    Ended,
    EpochEnded,
    Event,
    Halved,
    Notice,
    Retried,
    Started,
    Stepped,
)

_MAX_BARS = 16
"""Of models beside the one of all; a large stack would fill the screen."""
Left = Callable[[], float | None]
_SCORES = ("val_accuracy", "val_knn_accuracy", "train_loss")


@contextmanager
def display(
    plan: Plan,
    existing: Iterable[str],
    seconds_left: Callable[[], float | None] = lambda: None,
    *,
    enabled: bool = True,
) -> Iterator[Callable[[Event], None]]:
    """Give a listener that shows the events of growing `plan`, on standard error.

    Args:
        seconds_left: estimates the time that is left; None while it is not known.
    """
    console = Terminal(stderr=True)
    if not enabled:
        yield lambda event: None
    elif console.is_terminal:
        with _bars(console) as progress:
            yield _Bars(plan, existing, seconds_left, progress)
    else:
        yield _Lines(plan, existing, seconds_left, console)


def announce(text: str) -> None:
    """Say something before there is anything to show."""
    Terminal(stderr=True).print(text, style="dim", soft_wrap=True)


def labels(plan: Plan) -> dict[str, str]:
    """Each model in a few words: its stage, its id, and the factors in which it differs."""
    factors = {stage: plan.distinguishing(stage) for stage in plan.stages}
    return {model.id: _label(model, factors[model.stage]) for model in plan.models}


def _label(model: ModelSpec, factors: list[str]) -> str:
    flat = flatten(model.recipe.factors())
    parts = [_short(path, flat[path]) for path in factors if path in flat]
    return " ".join([model.stage, model.id[:8], *parts[:5]])


def _short(path: str, value: Any) -> str:
    """A name says enough by itself (mlp, simclr); a number needs its factor's."""
    if isinstance(value, str):
        return value
    return f"{path.rpartition('.')[2]}={value:g}" if isinstance(value, int | float) else str(value)


def _bars(console: Terminal) -> Progress:
    return Progress(
        NameColumn("{task.description}", table_column=Column(no_wrap=True, max_width=56)),
        BarColumn(bar_width=16),
        MofNCompleteColumn(),
        NameColumn("{task.fields[unit]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        NameColumn("{task.fields[note]}", style="dim"),
        console=console,
        refresh_per_second=5,
    )


class _Bars:
    def __init__(
        self, plan: Plan, existing: Iterable[str], seconds_left: Left, progress: Progress
    ) -> None:
        self.plan, self.seconds_left, self.progress = plan, seconds_left, progress
        self.bars: dict[str, TaskID] = {}
        self.labels = labels(plan)
        epochs = {spec.id: spec.recipe.epochs for spec in plan.models}
        done = set(existing)
        self.ended = len(done)
        self.epochs_of_ended = sum(epochs[id] for id in done)
        self.running: dict[str, int] = {}
        # The overall bar counts epochs, since models differ in how many they have.
        self.all = progress.add_task(
            plan.name,
            total=sum(epochs.values()),
            completed=self.epochs_of_ended,
            unit="epochs",
            note=self._count(),
        )

    def __call__(self, event: Event) -> None:
        progress = self.progress
        match event:
            case Started():
                epochs = self.plan[event.model].recipe.epochs
                self.bars[event.model] = progress.add_task(
                    "  " + self.labels[event.model],
                    total=epochs,
                    unit="epochs",
                    note="",
                    visible=len(self.bars) < _MAX_BARS,
                )
            case Stepped():
                share = event.epoch - 1 + event.step / event.steps
                progress.update(self.bars[event.model], completed=round(share, 2))
                self._refresh_all()
            case EpochEnded():
                bar = self.bars[event.model]
                progress.update(bar, completed=event.epoch, note=_scores(event))
                self.running[event.model] = event.epoch
                self._refresh_all()
            case Retried():
                self.running.pop(event.model, None)
                progress.remove_task(self.bars.pop(event.model))
                self._print(f"{self.labels[event.model]}: {event.cause}; retrying", "yellow")
            case Halved():
                self._print(_halved(event), "yellow")
            case Notice():
                self._print(event.text, "dim")
            case Ended():
                if event.model in self.bars:
                    progress.remove_task(self.bars.pop(event.model))
                self.ended += 1
                self.running.pop(event.model, None)
                self.epochs_of_ended += self.plan[event.model].recipe.epochs
                self._refresh_all()
                if event.status != "finished":
                    what = f"{self.labels[event.model]} {event.status}: {event.message}"
                    self._print(what, "red")

    def _print(self, text: str, style: str) -> None:
        self.progress.console.print(text, style=style)

    def _refresh_all(self) -> None:
        completed = self.epochs_of_ended + sum(self.running.values())
        self.progress.update(self.all, completed=completed, note=self._count())

    def _count(self) -> str:
        return f"{self.ended} of {len(self.plan)} models{_left(self.seconds_left())}"


class _Lines:
    def __init__(
        self, plan: Plan, existing: Iterable[str], seconds_left: Left, console: Terminal
    ) -> None:
        self.plan, self.console, self.labels = plan, console, labels(plan)
        self.seconds_left = seconds_left
        self.ended = len(set(existing))
        self.scores: dict[str, str] = {}
        if self.ended:
            self._print(f"{self.ended} of {len(plan)} models are there already")

    def __call__(self, event: Event) -> None:
        match event:
            case EpochEnded():
                self.scores[event.model] = _scores(event)
            case Retried():
                self._print(f"{self.labels[event.model]}: {event.cause}; retrying")
            case Halved():
                self._print(_halved(event))
            case Notice():
                self._print(event.text)
            case Ended():
                self.ended += 1
                details = event.message or self.scores.pop(event.model, "")
                what = self.labels[event.model]
                left = _left(self.seconds_left())
                self._print(
                    f"[{self.ended}/{len(self.plan)}] {what} {event.status}: {details}{left}"
                )

    def _print(self, text: str) -> None:
        self.console.print(text, soft_wrap=True)


def _halved(event: Halved) -> str:
    many = "model" if event.models == 1 else "models"
    return f"out of memory; now {event.models} {many} at a time"


def _scores(event: EpochEnded) -> str:
    scores = [
        f"{name.removeprefix('val_')} {event.metrics[name]:.3f}"
        for name in _SCORES
        if name in event.metrics
    ]
    return ", ".join(scores)


def _left(seconds: float | None) -> str:
    """ "; about 3 min left", and nothing where that is not known, or nothing is left."""
    if not seconds:
        return ""
    if seconds < 90:
        return f"; about {max(round(seconds), 1)} s left"
    if seconds < 90 * 60:
        return f"; about {round(seconds / 60)} min left"
    return f"; about {seconds / 3600:.1f} h left"
