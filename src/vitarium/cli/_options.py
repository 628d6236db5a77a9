"""Options that several commands have."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

Device = Annotated[
    str, typer.Option(help="auto (a GPU where there is one), cpu, cuda, or one GPU: cuda:1.")
]
UNCHECKED = False
"""Of paths: that one cannot be read is told by the library in a line, not by typer in a box."""
DataDir = Annotated[
    Path | None,
    typer.Option(help="Looked into first for data sets.", show_default=False, readable=UNCHECKED),
]
Where = Annotated[
    str,
    typer.Option(
        metavar="SQL",
        help="Only models that fulfil a condition over their factors and scores, "
        "e.g. \"lr < 0.01 and stage = 'finetune'\".",
        show_default=False,
    ),
]
Images = Annotated[
    int | None,
    typer.Option(
        min=4, help="On at most so many images, of each class in proportion.", show_default=False
    ),
]


class SplitChoice(StrEnum):
    """Which images of a data set."""

    train = "train"
    val = "val"
    test = "test"


Split = Annotated[SplitChoice, typer.Option(help="On which images.")]
