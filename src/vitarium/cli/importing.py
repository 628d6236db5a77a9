"""`vitarium import`: models that others trained, into a zoo."""

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from vitarium.cli import _completion as completion
from vitarium.cli import _options as options
from vitarium.cli._options import argument, option, path_option
from vitarium.cli._progress import AGAIN, progress_bar, resumable
from vitarium.cli._tables import HAS_ALL, print_rows
from vitarium.core import files
from vitarium.core.errors import InvalidInput
from vitarium.core.filenames import user_path
from vitarium.core.numerals import counted
from vitarium.core.terminal import Terminal, print_note

if TYPE_CHECKING:
    from vitarium.formats.foreign_zoo import ForeignZoo
    from vitarium.formats.import_zoo import ModelImported

_MAX_NAMES = 3  # of models with the same note


def import_(
    source: Annotated[str, argument("The folder or file to import.")],
    zoo: Annotated[
        Path | None, path_option("The zoo's folder; created if it does not exist.")
    ] = None,
    importer: Annotated[
        str | None,
        option(
            "The format; `vitarium plugins importers` lists all. Default: detected.",
            metavar="FORMAT",
            autocompletion=completion.plugins("importer"),
        ),
    ] = None,
    table: Annotated[
        Path | None,
        path_option(
            "CSV table of the files: their names, parents, epochs, factors. It may lie anywhere.",
            metavar="FILE",
        ),
    ] = None,
    settings: options.Settings = None,
    orphans: Annotated[
        bool, option("--orphans", "Import models whose parent is missing without a parent.")
    ] = False,
    wait: options.Wait = False,
    dry_run: options.DryRun = False,
    json: options.DryRunJson = False,
    csv: options.DryRunCsv = False,
) -> None:
    """Bring models that others trained into a zoo: every epoch, bit for bit, with its lineage.

    If it is interrupted, run the same command to resume; models that are there are skipped. Files
    are only read as tensors: one that would run code is refused.

    Examples:

      vitarium import my_vit.pth --zoo my-zoo

      vitarium import published-zoo --dry-run

      vitarium import published-zoo --zoo my-zoo

      vitarium import checkpoints --zoo my-zoo --table models.csv

      vitarium import my-lora --zoo my-zoo --set base=3f2a
    """
    with resumable("Nothing was imported yet", AGAIN):
        from vitarium.core.registry import get
        from vitarium.formats._weight_checks import check_weights
        from vitarium.formats.foreign_zoo import find_models, recognized_importer
        from vitarium.formats.import_zoo import import_zoo

        chosen = options.parsed(settings)
        has_table = table is not None or chosen.get("table") is not None
        importer = importer or recognized_importer(source, has_table=has_table)
        chosen = options.parsed(settings, config=get("importer", importer).config)
        if table is not None and "table" in chosen:
            raise InvalidInput("--table and --set table=… name a table each; leave one out")
        chosen |= _table_setting(table, source)
        foreign = find_models(source, importer=importer, zoo=zoo, **chosen)
    if dry_run:
        models = counted(len(foreign.models), "model")
        title = f"{foreign.source}: {models} ({foreign.importer})"
        spare = ["factors", "outputs", "with weights", "parent epoch"]
        complete: dict[str, Any] = {"complete": HAS_ALL, "as_json": json, "as_csv": csv}
        print_rows(_rows(foreign), title=title, spare=spare, **complete)
        _print_notes(foreign)
        with progress_bar("checking weights", unit="models") as progress:
            check_weights(foreign.models, progress, read=True)
        return
    if zoo is None:
        raise InvalidInput(
            "no zoo to import into: --zoo DIR names the zoo's folder (--dry-run needs none)"
        )
    _print_notes(foreign)
    is_new: list[bool] = []

    def listener(event: "ModelImported") -> None:
        is_new.append(event.new)
        if not Terminal(stderr=True).is_terminal:  # else there is a bar
            epochs = counted(len(event.model.epochs), "epoch")
            outcome = epochs if event.new else "there already"
            count = f"[{len(is_new)}/{len(foreign.models)}]"
            print_note(f"{count} {event.id[:8]} {event.model.name}: {outcome}")

    stopped = resumable(f"What is imported is kept in {zoo}")
    with stopped, progress_bar("importing", unit="epochs") as progress:
        import_zoo(foreign, zoo, orphans=orphans, wait=wait, progress=progress, listener=listener)
    new, existing = sum(is_new), len(is_new) - sum(is_new)
    empty = f", {len(foreign.empty)} without weights were left out" if foreign.empty else ""
    known = f", {counted(existing, 'model')} already there" if existing else ""
    counts = f"{counted(new, 'model')} imported into {zoo}{known}{empty}"
    print_note(f"{counts}. Look around: vitarium ls {zoo}")


def _table_setting(table: Path | None, source: str) -> dict[str, str]:
    """A table that is here, or in the source; InvalidInput where there are two of that name."""
    if table is None:
        return {}
    here, inside = user_path(table), user_path(source) / table
    if not files.exists(here):
        return {"table": str(table)}
    if files.exists(inside) and not here.samefile(inside):
        hint = f"name one: --table {here.absolute()} or --table {inside}"
        raise InvalidInput(f"{table} is in this folder and in {source}; {hint}")
    return {"table": str(here.absolute())}


def _rows(foreign: "ForeignZoo") -> list[dict[str, object]]:
    names = {model.name for model in foreign.models}
    rows = []
    for model in foreign.models:
        absent = "" if model.parent in names else " (not in here)"
        architecture = model.architecture
        factors = architecture.factors(defaults=False) if architecture else {}
        rows.append(
            {
                "model": model.name,
                "stage": model.stage,
                "parent": model.base.model
                if model.base
                else model.parent and model.parent + absent,
                "parent epoch": model.base.epoch if model.base else model.parent_epoch,
                "epochs": len(model.epochs),
                "with weights": sum(epoch.load is not None for epoch in model.epochs),
                "architecture": architecture and factors.get("model", architecture.name),
                "outputs": model.num_outputs,
                "factors": len(model.settings),
            }
        )
    return rows


def _print_notes(foreign: "ForeignZoo") -> None:
    """Print everything that the importer found missing or broken."""
    names: dict[str, list[str]] = defaultdict(list)
    for model in (*foreign.models, *foreign.empty):
        for note in model.notes:
            names[note].append(model.name)
    for model in foreign.empty:
        if not any(note.startswith("left out") for note in model.notes):
            names["no weights were kept; it is left out"].append(model.name)
    for note, models in names.items():
        more = f" and {len(models) - _MAX_NAMES} more" if len(models) > _MAX_NAMES else ""
        print_note(f"{', '.join(models[:_MAX_NAMES])}{more}: {note}", style="yellow")
