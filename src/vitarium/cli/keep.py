"""`vitarium verify`, `pack` and `unpack`: is the zoo whole, and how it lies on disk."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from vitarium.cli._tables import print_json, print_rows, size
from vitarium.cli.zoo import Json, ZooFolder
from vitarium.core.errors import NotAZoo
from vitarium.core.file_faults import reading
from vitarium.core.terminal import NameColumn, Terminal


def verify(
    directory: ZooFolder,
    deep: Annotated[
        bool, typer.Option("--deep", help="Unpack every tensor and build every model, too.")
    ] = False,
    json: Json = False,
) -> None:
    """Find whatever is damaged or missing in a zoo: every flipped bit, every truncated file.

    Says what is lost by each fault and what can be rebuilt; nothing is changed. The exit status is
    1 where there are faults. May run while the zoo grows.

    Examples:

      vitarium verify demo-zoo

      vitarium verify demo-zoo --deep
    """
    from vitarium.zoo.verify import verify as find_faults

    with reading(directory):
        there = (directory / "models").is_dir() or (directory / "zoo.json").exists()
    if not there:
        raise NotAZoo(f"{directory} is not a zoo (it has neither zoo.json nor models)")
    with progress("models") as report:
        faults = find_faults(directory, deep=deep, report=report)
    rows = [{"file": one.path, "fault": one.fault, "lost": one.lost} for one in faults]
    if json:
        print_json(rows)
    elif rows:
        count = f"{len(rows)} {'fault' if len(rows) == 1 else 'faults'}"
        print_rows(rows, title=f"{directory}: {count}")
    else:
        Terminal(soft_wrap=True).print(f"{directory} is whole")
    if faults:
        raise typer.Exit(1)


def pack(directory: ZooFolder) -> None:
    """Make a zoo small: keep every checkpoint as the difference to another one, bit-exact.

    New checkpoints are packed already; this packs those that `unpack` made plain, or an older
    version wrote. In place, a file at a time: whenever it is stopped, nothing is lost, and running
    it again goes on.

    Example:  vitarium pack demo-zoo
    """
    _convert(directory, "pack")


def unpack(directory: ZooFolder) -> None:
    """Make a zoo fast: keep every checkpoint as a plain safetensors file, to be mapped into memory.

    Takes about half as much space again, and every safetensors reader opens the files. In place, a
    file at a time: whenever it is stopped, nothing is lost, and running it again goes on.

    Example:  vitarium unpack demo-zoo
    """
    _convert(directory, "unpack")


def _convert(directory: Path, how: str) -> None:
    from vitarium.zoo import Zoo

    zoo = Zoo.open(directory).upgraded()
    with progress("checkpoints") as report:
        done = zoo.pack(report) if how == "pack" else zoo.unpack(report)
    Terminal(soft_wrap=True).print(
        f"{done.converted} of {done.checkpoints} checkpoints {how}ed: "
        f"{size(done.bytes_before)} before, {size(done.bytes_after)} now",
    )


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, nothing elsewhere; gives the function that moves it."""
    columns = (
        NameColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    console = Terminal(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
