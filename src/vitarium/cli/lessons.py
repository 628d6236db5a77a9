"""`vitarium lessons write|check`: a teacher's outputs, stored once for many students."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from vitarium.cli import _completion as completion
from vitarium.cli import _options as options
from vitarium.cli._options import Csv, DataDir, Json, argument, option, path_argument, path_option
from vitarium.cli._progress import progress_bar, resumable
from vitarium.cli._spelling import Command
from vitarium.cli._tables import HAS_ALL, print_rows
from vitarium.core.numerals import size
from vitarium.core.terminal import print_line

app = typer.Typer(
    help="Store a teacher's outputs once, for many students that learn from them.",
    no_args_is_help=True,
)


@app.command(cls=Command)
def write(
    blueprint: Annotated[
        str,
        argument(
            "A YAML file with students whose objective is stored_lessons.",
            metavar="BLUEPRINT",
            autocompletion=completion.blueprints,
        ),
    ],
    zoo: Annotated[
        Path | None, path_option("Zoo with the teacher, or with parents. Default: NAME-zoo.")
    ] = None,
    out: Annotated[
        Path | None, path_option("Folder of the lessons. Default: as the blueprint has it.")
    ] = None,
    precision: Annotated[
        Literal["fp32", "tf32", "bf16"], option("Precision in which the teacher computes.")
    ] = "fp32",
    data_dir: DataDir = None,
    device: options.Device = "auto",
    json: Json = False,
    csv: Csv = False,
) -> None:
    """Write the lessons that a blueprint's students learn from: a teacher's probabilities.

    The teacher sees each training image of each epoch as the students will, augmented and mixed,
    and the largest top_k of its probabilities are stored. If it is interrupted, run the same
    command to resume. The same command writes further epochs where the blueprint has more.

    Example:  vitarium lessons write students.yaml --zoo demo-zoo
    """
    state = "The epochs that are written stay"
    with resumable(state), progress_bar("writing lessons", unit="steps") as progress:
        from vitarium.engine.lessons import write_lessons

        written = write_lessons(
            blueprint,
            zoo,
            out=out,
            data_dir=data_dir,
            device=device,
            precision=precision,
            progress=progress,
        )
    plain = json or csv
    rows = [
        {
            "folder": str(each.folder),
            "epochs": each.epochs,
            "new": each.new_epochs,
            "bytes": each.bytes if plain else size(each.bytes),
            "uncompressed": each.plain_bytes if plain else size(each.plain_bytes),
        }
        for each in written
    ]
    print_rows(rows, complete=HAS_ALL, as_json=json, as_csv=csv)


@app.command(cls=Command)
def check(
    lessons: Annotated[Path, path_argument("Folder of lessons.", metavar="LESSONS")],
    zoo: Annotated[
        Path | None, path_option("Zoo with the teacher, where that is one of its models.")
    ] = None,
    steps: Annotated[
        int, option("Steps of each epoch that are compared with the teacher.", min=1)
    ] = 2,
    data_dir: DataDir = None,
    device: options.Device = "auto",
    json: Json = False,
    csv: Csv = False,
) -> None:
    """Read all lessons and compare some with the teacher anew. Exit status 1 if they have drifted.

    Every file proves by its checksum that it is whole. Lessons drift where another version of a
    library augments images, or computes, otherwise.

    Example:  vitarium lessons check lessons --zoo demo-zoo
    """
    with progress_bar("comparing lessons", unit="epochs") as progress:
        from vitarium.engine.lessons import check_lessons

        drifts = check_lessons(
            lessons, zoo, steps=steps, data_dir=data_dir, device=device, progress=progress
        )
    rows = [
        {
            "epoch": drift.epoch,
            "images": drift.records,
            "difference": drift.difference,
            "largest": drift.largest,
            "other_classes": drift.other_classes,
        }
        for drift in drifts
    ]
    print_rows(rows, complete=HAS_ALL, as_json=json, as_csv=csv)
    drifted = [drift.epoch for drift in drifts if drift.has_drifted]
    if not (json or csv):
        verdict = f"drifted in epochs {', '.join(map(str, drifted))}" if drifted else "as written"
        print_line(f"{lessons}: {verdict}")
    if drifted:
        raise typer.Exit(1)
