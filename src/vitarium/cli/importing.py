"""`vitarium import`: models that others trained, into a zoo."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from vitarium.cli._options import UNCHECKED
from vitarium.cli._settings import Settings, parsed
from vitarium.cli._tables import print_rows
from vitarium.core.errors import InvalidInput
from vitarium.core.terminal import NameColumn, Terminal

if TYPE_CHECKING:
    from vitarium.formats.import_zoo import Found, Report, Step


def import_(
    source: Annotated[str, typer.Argument(help="The folder or file to import.")],
    zoo: Annotated[
        Path | None,
        typer.Option(
            help="The zoo's folder; made if it is not there.",
            show_default=False,
            readable=UNCHECKED,
        ),
    ] = None,
    importer: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="FORMAT",
            help="See `vitarium plugins importer`. Default: the format that SOURCE has.",
            show_default=False,
        ),
    ] = None,
    settings: Settings = None,
    orphans: Annotated[
        bool, typer.Option("--orphans", help="Import models whose parent is not there without it.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait while another process writes into the zoo.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be imported; write nothing.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="With --dry-run: as JSON.")] = False,
) -> None:
    """Bring models that others trained into a zoo: every epoch, bit for bit, with its lineage.

    Run again, it skips what is there and goes on where it was stopped. Files are only read as
    tensors: one that would run code is refused.

    Examples:

      vitarium import published-zoo --dry-run

      vitarium import published-zoo --zoo my-zoo

      vitarium import checkpoints --zoo my-zoo --from checkpoint_table --set table=models.csv
    """
    from vitarium.formats.import_zoo import bring, find_models

    found = find_models(source, importer=importer, **parsed(settings))
    if dry_run:
        _list(found, json=json)
        return
    if zoo is None:
        raise InvalidInput("where to? --zoo DIR names the zoo's folder; --dry-run needs none")
    console = Terminal(stderr=True)
    _say_notes(found, console)
    counts = _Counts()
    try:
        with _progress(found, console) as show:

            def report(step: "Step") -> None:
                counts.note(step)
                show(step)

            bring(found, zoo, orphans=orphans, wait=wait, report=report)
    except KeyboardInterrupt:
        text = f"\nStopped. What is imported is kept in {zoo}; the same command goes on after it."
        console.print(text, style="yellow", soft_wrap=True)
        raise typer.Exit(130) from None
    empty = f", {len(found.empty)} without weights were left out" if found.empty else ""
    console.print(
        f"{counts.new} models imported into {zoo}, {counts.there} were there already{empty}. "
        f"Look around: vitarium ls {zoo}",
        soft_wrap=True,
    )


class _Counts:
    """How many models came over, and how many were there."""

    def __init__(self) -> None:
        self.new = self.there = 0

    def note(self, step: "Step") -> None:
        if step.epoch is None:
            self.new += step.new
            self.there += not step.new


def _list(found: "Found", *, json: bool) -> None:
    here = {model.name for model in found.models}
    rows = [
        {
            "model": model.name,
            "stage": model.stage,
            "parent": model.parent
            and model.parent + ("" if model.parent in here else " (not in here)"),
            "parent epoch": model.parent_epoch,
            "epochs": len(model.epochs),
            "with weights": sum(epoch.load is not None for epoch in model.epochs),
            "architecture": model.architecture
            and model.architecture.factors(defaults=False).get("model", model.architecture.name),
            "outputs": model.num_outputs,
            "factors": len(model.settings),
        }
        for model in found.models
    ]
    print_rows(rows, title=f"{found.source}: {len(rows)} models ({found.importer})", as_json=json)
    _say_notes(found, Terminal(stderr=True))


def _say_notes(found: "Found", console: Terminal) -> None:
    """What the importer found missing or broken; nothing of it stays unsaid."""
    for model in (*found.models, *found.empty):
        for note in model.notes:
            console.print(f"{model.name}: {note}", style="yellow", soft_wrap=True)
    for model in found.empty:
        text = f"{model.name}: no weights were kept; it is left out"
        console.print(text, style="yellow", soft_wrap=True)


@contextmanager
def _progress(found: "Found", console: Terminal) -> Iterator["Report"]:
    """A bar that counts epochs on a terminal; a line a model elsewhere."""
    if not console.is_terminal:
        yield _Lines(len(found.models), console)
        return
    columns = (
        NameColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        NameColumn("epochs"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=sum(len(model.epochs) for model in found.models))

        def show(step: "Step") -> None:
            progress.update(task, description=step.model.name[-48:])
            progress.advance(task, step.epoch is not None)

        yield show


class _Lines:
    def __init__(self, models: int, console: Terminal) -> None:
        self.models, self.console, self.ended = models, console, 0

    def __call__(self, step: "Step") -> None:
        if step.epoch is not None:
            return
        self.ended += 1
        epochs = len(step.model.epochs)
        brought = f"{epochs} epoch{'s' * (epochs != 1)}"
        what = brought if step.new else "there already"
        self.console.print(
            f"[{self.ended}/{self.models}] {step.id[:8]} {step.model.name}: {what}",
            soft_wrap=True,
        )
