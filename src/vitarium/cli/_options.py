"""Options that several commands have."""

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

UNCHECKED = False
"""Of paths: the library says in a line that one cannot be read, instead of typer in a box."""
path_option = partial(typer.Option, readable=UNCHECKED)
path_argument = partial(typer.Argument, readable=UNCHECKED)


class SplitChoice(StrEnum):
    """Which images of a data set."""

    train = "train"
    val = "val"
    test = "test"


DryRunJson = Annotated[bool, typer.Option("--json", help="With --dry-run: as JSON.")]
Device = Annotated[
    str, typer.Option(help="auto (a GPU where there is one), cpu, cuda, or one GPU: cuda:1.")
]
DataDir = Annotated[Path | None, path_option(help="Dataset folder, searched first.")]
Where = Annotated[
    str,
    typer.Option(
        metavar="SQL",
        help="Only models that fulfill a condition over their factors and scores, "
        "e.g. \"lr < 0.01 and stage = 'finetune'\".",
        show_default=False,
    ),
]
Images = Annotated[
    int | None,
    typer.Option(min=4, help="Evaluate on at most this many images, stratified by class."),
]
Split = Annotated[SplitChoice, typer.Option(help="Split to evaluate on.")]
