"""`vitarium rm`: models that are no longer wanted."""

from collections import Counter
from typing import TYPE_CHECKING, Annotated

from vitarium.cli._options import DryRun, Models, Wait, Where, ZooFolder, option
from vitarium.cli._progress import progress_bar
from vitarium.cli._tables import print_rows
from vitarium.core.numerals import counted, size
from vitarium.core.terminal import Terminal

if TYPE_CHECKING:
    from vitarium.zoo.removal import Removal


def rm(
    directory: ZooFolder,
    models: Models = None,
    where: Where = "",
    with_dependents: Annotated[
        bool, option("--with-dependents", "Remove the models that come of them, too.")
    ] = False,
    keep_dependents: Annotated[
        bool,
        option(
            "--keep-dependents",
            "--yes",
            "Remove them though other models come of them: these stay, with all their weights.",
        ),
    ] = False,
    dry_run: DryRun = False,
    wait: Wait = False,
) -> None:
    """Remove models from a zoo, with their measured numbers; ID@3: the weights after epoch 3.

    Models that come of others (children, merged ones, those taught by them) stay whole: their
    weights are packed anew, bit for bit the same. What a removed model was, and checksums of its
    weights, stay in the folder `removed`: grown again, it says whether it has the same bits.

    Examples:

      vitarium rm demo-zoo 3f2a --dry-run

      vitarium rm demo-zoo --where "status = 'diverged'"

      vitarium rm demo-zoo 77b0@2 77b0@3
    """
    from vitarium.zoo.removal import remove

    with progress_bar("checkpoints") as progress:
        removal = remove(
            directory,
            models or None,
            where=where,
            with_dependents=with_dependents,
            keep_dependents=keep_dependents or (dry_run and not with_dependents),
            dry_run=dry_run,
            wait=wait,
            progress=progress,
        )
    _print(removal, dry_run=dry_run, is_confirmed=with_dependents or keep_dependents)


def _print(removal: "Removal", *, dry_run: bool, is_confirmed: bool) -> None:
    terminal = Terminal(soft_wrap=True)
    rows = [{"model": id, "goes": "the model"} for id in removal.models]
    rows += [
        {"model": ref.model, "goes": f"weights of epoch {ref.epoch}"} for ref in removal.checkpoints
    ]
    print_rows(rows, title="Would be removed" if dry_run else "Removed")
    if removal.dependents:
        anew = Counter(ref.model for ref in removal.rebased)
        stays = [
            {"model": id, "it is": how, "packed anew": anew[id] or None}
            for id, how in removal.dependents.items()
        ]
        print_rows(stays, title="Models that come of them and stay")
    terminal.print(
        ", ".join(
            [
                counted(len(removal.models), "model"),
                *([counted(len(removal.checkpoints), "checkpoint")] if removal.checkpoints else []),
                counted(removal.records, "measured number"),
                size(removal.nbytes),
            ]
        )
    )
    if dry_run and removal.dependents and not is_confirmed:
        terminal.print("To do it, say --keep-dependents, or --with-dependents to remove these, too")
