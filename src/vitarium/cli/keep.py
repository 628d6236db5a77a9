"""`vitarium verify`, `pack` and `unpack`: integrity of a zoo, and how it is stored."""

from pathlib import Path
from typing import Annotated

import typer

from vitarium.cli._options import Csv, Json, ZooFolder, option
from vitarium.cli._progress import AGAIN, progress_bar, resumable
from vitarium.cli._tables import HAS_ALL, print_rows
from vitarium.core.file_faults import reading
from vitarium.core.numerals import counted, size
from vitarium.core.terminal import print_line
from vitarium.zoo._not_a_zoo import not_a_zoo


def verify(
    directory: ZooFolder,
    deep: Annotated[
        bool, option("--deep", "Also unpack every tensor and build every model.")
    ] = False,
    json: Json = False,
    csv: Csv = False,
) -> None:
    """Find whatever is damaged or missing in a zoo: every flipped bit, every truncated file.

    Reports what each fault costs and what can be rebuilt; changes nothing. The exit status is 1 if
    there are faults. Safe to run while the zoo grows.

    Examples:

      vitarium verify demo-zoo

      vitarium verify demo-zoo --deep
    """
    from vitarium.zoo.verify import verify as find_faults

    with reading(directory):
        there = (directory / "models").is_dir() or (directory / "zoo.json").exists()
    if not there:
        raise not_a_zoo(directory)
    with resumable("Nothing was changed", AGAIN), progress_bar("checking models") as progress:
        faults = find_faults(directory, deep=deep, progress=progress)
    rows = [{"file": fault.path, "fault": fault.fault, "lost": fault.lost} for fault in faults]
    if json or csv:
        print_rows(rows, as_json=json, as_csv=csv)
    elif rows:
        title = f"{directory}: {counted(len(rows), 'fault')}"
        print_rows(rows, title=title, complete=HAS_ALL)
    else:
        print_line(f"{directory} is intact: every file has its checksum")
    if faults:
        raise typer.Exit(1)


def pack(directory: ZooFolder) -> None:
    """Make a zoo small: store every checkpoint as the difference to another one, bit-exact.

    New checkpoints are packed already; this packs those that `unpack` made plain, or an older
    version wrote. Works in place, one file at a time; if it is interrupted, nothing is lost, and
    the same command resumes.

    Example:  vitarium pack demo-zoo
    """
    _convert(directory, "pack")


def unpack(directory: ZooFolder) -> None:
    """Make a zoo fast: store every checkpoint as a plain safetensors file, mapped into memory.

    Takes about half as much space again; every safetensors reader opens the files. Works in place,
    one file at a time; if it is interrupted, nothing is lost, and the same command resumes.

    Example:  vitarium unpack demo-zoo
    """
    _convert(directory, "unpack")


def _convert(directory: Path, how: str) -> None:
    from vitarium.zoo import Zoo

    zoo = Zoo.open(directory).upgraded()
    state = f"Every checkpoint is as it was, or {how}ed"
    with resumable(state), progress_bar(f"{how}ing checkpoints") as progress:
        done = (zoo.pack if how == "pack" else zoo.unpack)(progress=progress)
    if not done.converted:
        checkpoints = counted(done.checkpoints, "checkpoint")
        print_line(f"{checkpoints}, all {how}ed already: {size(done.bytes_after)}")
        return
    print_line(
        f"{done.converted:,} of {done.checkpoints:,} checkpoints {how}ed: "
        f"{size(done.bytes_before)} before, {size(done.bytes_after)} now"
    )
