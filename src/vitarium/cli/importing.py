"""`vitarium import`: models that others trained, into a zoo."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitarium.cli._options import UNCHECKED
from vitarium.cli._progress import progress_bar
from vitarium.cli._settings import Settings, parsed
from vitarium.cli._tables import print_rows
from vitarium.core.errors import InvalidInput
from vitarium.core.terminal import Terminal

if TYPE_CHECKING:
    from vitarium.formats.import_zoo import ForeignZoo, ModelImported


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
            metavar="FORMAT",
            help="The format; `vitarium plugins importers` lists all. Default: detected.",
            show_default=False,
        ),
    ] = None,
    settings: Settings = None,
    orphans: Annotated[
        bool,
        typer.Option("--orphans", help="Import models whose parent is missing without a parent."),
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

    If it is interrupted, run the same command to resume; models that are there are skipped. Files
    are only read as tensors: one that would run code is refused.

    Examples:

      vitarium import published-zoo --dry-run

      vitarium import published-zoo --zoo my-zoo

      vitarium import checkpoints --zoo my-zoo --importer checkpoint_table --set table=models.csv
    """
    from vitarium.formats.import_zoo import find_models, import_models

    foreign = find_models(source, importer=importer, **parsed(settings))
    if dry_run:
        _list(foreign, json=json)
        return
    if zoo is None:
        raise InvalidInput(
            "no zoo to import into: --zoo DIR names the zoo's folder (--dry-run needs none)"
        )
    console = Terminal(stderr=True)
    _print_notes(foreign, console)
    counts = _Counts(len(foreign.models), console)
    try:
        with progress_bar(unit="epochs") as progress:
            import_models(
                foreign, zoo, orphans=orphans, wait=wait, progress=progress, listener=counts
            )
    except KeyboardInterrupt:
        text = f"\nStopped. What is imported is kept in {zoo}; run the same command to resume."
        console.print(text, style="yellow", soft_wrap=True)
        raise typer.Exit(130) from None
    empty = f", {len(foreign.empty)} without weights were left out" if foreign.empty else ""
    console.print(
        f"{counts.new} models imported into {zoo}, {counts.existing} were there already{empty}. "
        f"Look around: vitarium ls {zoo}",
        soft_wrap=True,
    )


class _Counts:
    """Counts new and existing models; where there is no terminal for a bar, a line for each."""

    def __init__(self, models: int, console: Terminal) -> None:
        self.models, self.console = models, console
        self.new = self.existing = 0

    def __call__(self, event: "ModelImported") -> None:
        self.new += event.new
        self.existing += not event.new
        if self.console.is_terminal:
            return
        epochs = len(event.model.epochs)
        outcome = f"{epochs} epoch{'s' * (epochs != 1)}" if event.new else "there already"
        self.console.print(
            f"[{self.new + self.existing}/{self.models}] {event.id[:8]} {event.model.name}: "
            + outcome,
            soft_wrap=True,
        )


def _list(foreign: "ForeignZoo", *, json: bool) -> None:
    names = {model.name for model in foreign.models}
    rows = [
        {
            "model": model.name,
            "stage": model.stage,
            "parent": model.parent
            and model.parent + ("" if model.parent in names else " (not in here)"),
            "parent epoch": model.parent_epoch,
            "epochs": len(model.epochs),
            "with weights": sum(epoch.load is not None for epoch in model.epochs),
            "architecture": model.architecture
            and model.architecture.factors(defaults=False).get("model", model.architecture.name),
            "outputs": model.num_outputs,
            "factors": len(model.settings),
        }
        for model in foreign.models
    ]
    print_rows(
        rows, title=f"{foreign.source}: {len(rows)} models ({foreign.importer})", as_json=json
    )
    _print_notes(foreign, Terminal(stderr=True))


def _print_notes(foreign: "ForeignZoo", console: Terminal) -> None:
    """Print everything that the importer found missing or broken."""
    for model in (*foreign.models, *foreign.empty):
        for note in model.notes:
            console.print(f"{model.name}: {note}", style="yellow", soft_wrap=True)
    for model in foreign.empty:
        text = f"{model.name}: no weights were kept; it is left out"
        console.print(text, style="yellow", soft_wrap=True)
