"""`vitarium archive` and `merge-zoos`: a part of a zoo as one of its own, and zoos as one."""

from pathlib import Path
from typing import Annotated

from vitarium.cli._options import (
    DryRun,
    Models,
    Where,
    ZooFolder,
    option,
    path_argument,
    path_option,
)
from vitarium.cli._progress import Tally, progress_bar, resumable
from vitarium.cli._tables import print_rows
from vitarium.core.numerals import counted
from vitarium.core.terminal import print_line


def archive(
    directory: ZooFolder,
    models: Models = None,
    *,
    out: Annotated[
        Path, path_option("A new or empty folder, or a file that ends in .tar, .tar.gz or .tgz.")
    ],
    where: Where = "",
    ancestors: Annotated[
        bool,
        option(
            "Include the models that these descend from; without them, what was stored as a "
            "difference to them is packed anew."
        ),
    ] = True,
) -> None:
    """Copy models of a zoo, or the whole zoo, into a new zoo: a folder, or one archive file.

    Measured numbers, tags, notes and blueprints come along. Every file is compared with its
    checksums on the way; if it is interrupted, the same command resumes.

    Examples:

      vitarium archive demo-zoo --where "test_accuracy > 0.95" --out best-zoo

      vitarium archive demo-zoo 3f2a 77b0 --no-ancestors --out two.tar
    """
    tally = Tally()
    with (
        resumable(f"{directory} is as it was"),
        progress_bar("archiving", unit="models") as tally.progress,
    ):
        from vitarium.zoo import Zoo
        from vitarium.zoo.combine import archive as write
        from vitarium.zoo.listing import select

        zoo = Zoo.open(directory)
        chosen = {zoo.find(name) for name in select(zoo, models or None, where)}
        names = [*chosen] or None  # of an empty zoo, all
        write(zoo, names, out=out, ancestors=ancestors, progress=tally)
    print_line(f"{out}: {counted(tally.total, 'model')}{_came_along(tally.total - len(chosen))}")


def _came_along(ancestors: int) -> str:
    if not ancestors:
        return ""
    what = "an ancestor" if ancestors == 1 else "ancestors"
    return f", {ancestors:,} of them {what} of the others; --no-ancestors leaves ancestors out"


def merge_zoos(
    directories: Annotated[list[Path], path_argument("Zoos' folders.", metavar="DIR...")],
    into: Annotated[Path, path_option("A zoo, or a new or empty folder.")],
    prefer: Annotated[
        Path | None,
        path_option("Zoo whose bits to take of models that differ between zoos."),
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Merge several zoos into one: models, measured numbers, tags, notes and blueprints.

    A model that several zoos have with the same bits is copied once. If zoos have different bits of
    a model, nothing is copied, unless --prefer says whose to take. Every file is compared with its
    checksums on the way; if it is interrupted, the same command resumes.

    Examples:

      vitarium merge-zoos zoo-a zoo-b --into zoo-c

      vitarium merge-zoos zoo-b --into zoo-a --dry-run
    """
    state = f"Models that were copied are kept in {into}"
    with resumable(state), progress_bar("merging zoos", unit="models") as progress:
        from vitarium.zoo.combine import merge_zoos as combine

        merged = combine(directories, into, prefer=prefer, dry_run=dry_run, progress=progress)
    if merged.conflicts:
        rows = [{"model": id, "conflict": text} for id, text in merged.conflicts.items()]
        print_rows(rows, title="Models with other bits")
    verb = "would be copied" if dry_run else "copied"
    print_line(
        f"{into}: {counted(len(merged.copied), 'model')} {verb}, "
        f"{len(merged.present)} already there; "
        f"{counted(merged.records, 'measured number')}"
    )
