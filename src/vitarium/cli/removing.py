"""`vitarium rm`: models that are no longer wanted."""

import sys
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from vitarium.cli._options import DryRun, Models, Wait, Where, ZooFolder, option
from vitarium.cli._progress import progress_bar, resumable
from vitarium.cli._tables import print_rows, print_text
from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.errors import CorruptFile, InvalidInput
from vitarium.core.numerals import counted, size
from vitarium.core.terminal import print_line, print_note
from vitarium.zoo import Zoo

if TYPE_CHECKING:
    from vitarium.zoo.removal import Removal

_LISTED = 20  # models that are listed before they are removed


def rm(
    directory: ZooFolder,
    models: Models = None,
    where: Where = "",
    with_dependents: Annotated[
        bool, option("--with-dependents", "Also remove the models that depend on them.")
    ] = False,
    keep_dependents: Annotated[
        bool,
        option(
            "--keep-dependents",
            "Remove them although other models depend on them: those stay, with all their weights.",
        ),
    ] = False,
    yes: Annotated[bool, option("--yes", "-y", "Do not ask before it is done.")] = False,
    dry_run: DryRun = False,
    wait: Wait = False,
) -> None:
    """Remove models from a zoo, with their measured numbers; ID@3: the weights after epoch 3.

    It lists what will go and asks first; where there is no terminal to ask on, it needs --yes.
    Removed weights cannot be restored, only trained again.

    Models that depend on removed ones (children, merged models, students) stay intact: their
    weights are packed anew, bit for bit the same. A removed model's recipe and the checksums of its
    weights stay in the folder `removed`, so that growing it again can tell whether the bits agree.

    Examples:

      vitarium rm demo-zoo 3f2a --dry-run

      vitarium rm demo-zoo --where "status = 'diverged'"

      vitarium rm demo-zoo 77b0@2 77b0@3 --yes
    """
    from vitarium.zoo.removal import remove

    zoo = Zoo.open(directory)
    planned = remove(
        zoo,
        models or None,
        where=where,
        with_dependents=with_dependents,
        keep_dependents=keep_dependents or (dry_run and not with_dependents),
        dry_run=True,
    )
    _print_plan(zoo, planned, title="Would be removed" if dry_run else "To be removed")
    if dry_run:
        if planned.dependents and not keep_dependents:
            print_text("Give --keep-dependents, or --with-dependents to remove these, too.")
        return
    if not yes:
        _ask()
    # what was listed, and nothing that came since
    names = [*planned.models, *map(str, planned.checkpoints)]
    with resumable("The zoo is whole"), progress_bar("removing", transient=True) as progress:
        done = remove(zoo, names, keep_dependents=keep_dependents, wait=wait, progress=progress)
    print_line(f"removed: {_total(done)}")


def _ask() -> None:
    """Raises InvalidInput where there is nobody to ask, and Exit where the answer is no."""
    if not sys.stdin.isatty():
        raise InvalidInput("nothing was removed: without a terminal to ask on, give --yes")
    if not typer.confirm("Remove them? This cannot be undone.", err=True):
        print_note("nothing was removed")
        raise typer.Exit(1)


def _print_plan(zoo: Zoo, removal: "Removal", *, title: str) -> None:
    rows = [_row(zoo, id, removal) for id in removal.models]
    rows += [_row(zoo, ref.model, removal, ref) for ref in removal.checkpoints]
    print_rows(rows[:_LISTED], title=title)
    if (more := len(rows) - _LISTED) > 0:
        print_line(f"… and {more:,} more")
    if removal.dependents:
        print_line()
        anew = Counter(ref.model for ref in removal.rebased)
        stays = [
            {"model": id, "it is": how, "packed anew": anew[id] or None}
            for id, how in removal.dependents.items()
        ]
        print_rows(stays, title="Models that come of them and stay")
    print_line(f"in all: {_total(removal)}")


def _row(
    zoo: Zoo, id: str, removal: "Removal", ref: CheckpointRef | None = None
) -> dict[str, object]:
    name = str(ref or id)
    row: dict[str, object] = {"model": name, "stage": "", "epochs": None}
    with suppress(CorruptFile):  # a damaged model can be removed
        epochs = zoo.folder(id).epochs()
        row |= {"stage": zoo[id].stage, "epochs": epochs[-1].number if epochs else 0}
    return {**row, "size": size(removal.bytes_of[name])}


def _total(removal: "Removal") -> str:
    counts = [(len(removal.models), "model"), (len(removal.checkpoints), "checkpoint")]
    listed = [counted(count, noun) for count, noun in counts if count]
    return ", ".join([*listed, counted(removal.records, "measured number"), size(removal.nbytes)])
