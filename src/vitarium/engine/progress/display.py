"""Progress: bars on a terminal (all models, and each that is running), plain lines elsewhere."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich import progress as rich_progress
from rich.console import Console, RenderableType
from rich.table import Column, Table

from vitarium.blueprint import Plan, flatten
from vitarium.core.heartbeat import Heartbeat
from vitarium.core.numerals import counted, duration
from vitarium.core.terminal import NameColumn, Terminal
from vitarium.engine import events
from vitarium.engine.events import Ended, EpochEnded, Event

_MAX_BARS = 16  # of models beside the one of all; a large stack would fill the screen
SecondsLeft = Callable[[], float | None]
_SCORES = {
    "val_accuracy": "validation accuracy",
    "val_knn_accuracy": "validation k-NN accuracy",
    "val_map": "validation mAP",
    "val_knn_map": "validation k-NN mAP",
    "train_loss": "training loss",
}
"""Metrics that are shown, and what they are called."""
_SHORT = {"validation": "val", "training loss": "train loss"}
"""In a bar, which has to fit a terminal of 80 columns."""


@contextmanager
def display(
    plan: Plan,
    existing: Iterable[str],
    seconds_left: SecondsLeft = lambda: None,
    *,
    enabled: bool = True,
    names: Mapping[str, str] | None = None,
) -> Iterator[Callable[[Event], None]]:
    """Give a listener that shows the events of growing `plan`, on standard error.

    `names` are those of `labels`, where they are known.
    """
    console = Terminal(stderr=True)
    names = names or (labels(plan) if enabled else {})
    if not enabled:
        yield lambda event: None
    elif console.is_terminal:
        with _Rows(console=console, refresh_per_second=5) as progress:
            yield _Bars(plan, existing, seconds_left, names, progress)
    else:
        lines = _Lines(plan, existing, seconds_left, names, console)
        there = f", {lines.ended} of them are there already" if lines.ended else ""
        lines.show(f"growing {plan.name}: {counted(len(plan), 'model')}{there}")
        with Heartbeat(lines.beat) as heartbeat:
            yield lines
        lines.show(
            f"{lines.ended} of {counted(len(plan), 'model')} after {duration(heartbeat.seconds)}"
        )


class _Rows(rich_progress.Progress):
    """A bar of all epochs; below it, a line of each running model.

    Where a line is too narrow, names are cut and the bar is shortened, not counts and scores.
    """

    def get_renderables(self) -> Iterator[RenderableType]:
        name = NameColumn("{task.description}", table_column=Column())
        count = rich_progress.MofNCompleteColumn(table_column=Column(no_wrap=True))
        note = NameColumn("{task.fields[note]}", style="dim")
        bar = rich_progress.BarColumn(bar_width=16, table_column=Column())
        elapsed = rich_progress.TimeElapsedColumn(table_column=Column(no_wrap=True))
        overall, models = self.tasks[:1], self.tasks[1:]
        if overall:
            yield _grid([name, bar, count, NameColumn("epochs"), elapsed, note], overall)
        if running := [task for task in models if task.visible]:
            yield _grid([name, count, note], running)


def _grid(
    columns: Sequence[rich_progress.ProgressColumn], tasks: Iterable[rich_progress.Task]
) -> Table:
    grid = Table.grid(*(column.get_table_column().copy() for column in columns), padding=(0, 1))
    for task in tasks:
        grid.add_row(*(column(task) for column in columns))
    return grid


def announce(text: str) -> None:
    """Say something before there is anything to show."""
    Terminal(stderr=True).print(text, style="dim", soft_wrap=True)


def labels(plan: Plan) -> dict[str, str]:
    """Each model in a few words: its stage, its id, and the factors in which it differs."""
    factors = {stage: plan.distinguishing(stage) for stage in plan.stages}
    parents = {stage: {m.parent for m in plan.of_stage(stage)} for stage in plan.stages}
    texts = {}
    for model in plan.models:
        flat = flatten(model.recipe.factors())
        parts = []
        for path in [path for path in factors[model.stage] if path in flat][:5]:
            value, name = flat[path], path.rpartition(".")[2]
            # a name says enough by itself (mlp, simclr); all else needs its factor's
            parts.append(value if isinstance(value, str) else f"{name}={_printed(value)}")
        if model.parent and len(parents[model.stage]) > 1:  # else their children look alike
            parts.insert(0, f"of {model.parent[:8]}")
        texts[model.id] = " ".join([model.stage, model.id[:8], *parts])
    return texts


def _printed(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return f"{value:g}" if isinstance(value, int | float) else str(value).replace(" ", "")


class _Display:
    """A listener that shows what is news wherever it is shown."""

    def __init__(
        self,
        plan: Plan,
        existing: Iterable[str],
        seconds_left: SecondsLeft,
        names: Mapping[str, str],
        console: Console,
    ) -> None:
        self.plan, self.seconds_left, self.labels = plan, seconds_left, names
        self.ended, self.console = len(set(existing)), console
        self.scores: dict[str, str] = {}

    def __call__(self, event: Event) -> None:
        match event:
            case events.Retried():
                self.show(f"{self.labels[event.model]}: {event.cause}; retrying", "yellow")
            case events.Halved():
                many = "model" if event.models == 1 else "models"
                self.show(f"out of memory; now {event.models} {many} at a time", "yellow")
            case events.Remarked():
                self.show(f"{self.labels[event.model]}: {event.text}", "yellow")
            case events.Notice():
                self.show(event.text, "dim")
            case EpochEnded():
                scores = {label: event.metrics.get(name) for name, label in _SCORES.items()}
                texts = [f"{label} {x:.3f}" for label, x in scores.items() if x is not None]
                when = "" if event.epoch or not texts else "before training: "
                self.scores[event.model] = when + ", ".join(texts)
            case Ended():
                self.ended += 1

    def show(self, text: str, style: str = "") -> None:
        """Print a line; only a terminal breaks it where its width ends."""
        self.console.print(text, style=style, soft_wrap=not self.console.is_terminal)


class _Bars(_Display):
    """The overall bar counts epochs, since models differ in how many they have."""

    def __init__(
        self,
        plan: Plan,
        existing: Iterable[str],
        seconds_left: SecondsLeft,
        names: Mapping[str, str],
        progress: rich_progress.Progress,
    ) -> None:
        super().__init__(plan, existing, seconds_left, names, progress.console)
        self.progress = progress
        self.bars: dict[str, rich_progress.TaskID] = {}
        self.done = {id: plan[id].recipe.epochs for id in existing}
        total = sum(spec.recipe.epochs for spec in plan.models)
        self.all = progress.add_task(plan.name, total=total, note="")
        self._refresh_all()

    def __call__(self, event: Event) -> None:
        super().__call__(event)
        progress = self.progress
        match event:
            case events.Started():
                self.bars[event.model] = progress.add_task(
                    "  " + self.labels[event.model],
                    total=self.plan[event.model].recipe.epochs,
                    note="",
                    visible=len(self.bars) < _MAX_BARS,
                )
            case events.Stepped():
                share = event.epoch - 1 + event.step / event.steps
                progress.update(self.bars[event.model], completed=round(share, 2))
                self._refresh_all()
            case EpochEnded():
                bar = self.bars[event.model]
                progress.update(bar, completed=event.epoch, note=self._note(event.model))
                self.done[event.model] = event.epoch
                self._refresh_all()
            case events.Retried():
                self.done.pop(event.model, None)
                progress.remove_task(self.bars.pop(event.model))
            case Ended():
                if event.model in self.bars:
                    progress.remove_task(self.bars.pop(event.model))
                self.done[event.model] = self.plan[event.model].recipe.epochs
                self._refresh_all()
                if event.status != "finished":
                    label = self.labels[event.model]
                    self.show(f"{label} {event.status}: {event.message}", "red")

    def _note(self, model: str) -> str:
        note = self.scores[model]
        for word, short in _SHORT.items():
            note = note.replace(word, short)
        return note

    def _refresh_all(self) -> None:
        count = f"{self.ended} of {counted(len(self.plan), 'model')}{_left(self.seconds_left())}"
        self.progress.update(self.all, completed=sum(self.done.values()), note=count)


class _Lines(_Display):
    """A line for each model that ends, and one now and then in between."""

    epochs = 0  # that were finished since the start

    def beat(self, seconds: float) -> None:
        counts = (
            f"{self.ended} of {counted(len(self.plan), 'model')}, {counted(self.epochs, 'epoch')}"
        )
        self.show(f"{counts} after {duration(seconds)}{_left(self.seconds_left())}")

    def __call__(self, event: Event) -> None:
        super().__call__(event)
        if isinstance(event, EpochEnded) and event.epoch:  # 0: before training
            self.epochs += 1
        if isinstance(event, Ended):
            scores = self.scores.pop(event.model, "") if event.status == "finished" else ""
            details = "; ".join(filter(None, (scores, event.message)))
            text = f"{self.labels[event.model]} {event.status}: {details}"
            left = _left(self.seconds_left())
            self.show(f"[{self.ended}/{len(self.plan)}] {text}{left}")


def _left(seconds: float | None) -> str:
    """ "; about 3 min left", and nothing where that is not known, or nothing is left."""
    if not seconds:
        return ""
    if seconds < 90:
        return f"; about {max(round(seconds), 1)} s left"
    if seconds < 90 * 60:
        return f"; about {round(seconds / 60)} min left"
    return f"; about {seconds / 3600:.1f} h left"
