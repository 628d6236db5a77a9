"""`vitarium study`: what there is to find out about a whole population, as a page."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from vitarium.cli.options import DataDir, Device, Images, Split, SplitChoice, Where
from vitarium.cli.settings import Settings, parsed
from vitarium.cli.zoo import ZooFolder
from vitarium.store import Zoo

if TYPE_CHECKING:
    from vitarium.data.batches import SplitName

app = typer.Typer(help="Studies of a population, as pages with figures.", no_args_is_help=True)


Figures = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Write every figure as PNG and SVG, too, for a paper.",
        show_default=False,
    ),
]
_PAGE = "The page: one file that opens without a network."


@app.command("diversity")
def diversity(
    directory: ZooFolder,
    out: Annotated[Path, typer.Option(help=_PAGE)] = Path("diversity.html"),
    figures: Figures = None,
    where: Where = "",
    split: Split = SplitChoice.test,
    images: Images = None,
    settings: Settings = None,
    device: Device = "auto",
    data_dir: DataDir = None,
) -> None:
    """How different the models are - accuracy, predictions, features, weights - and why.

    Stage by stage: what each generating factor explains, how alike models are by their kinship,
    maps and heat maps of the population, and sentences with confidence intervals. What is not
    measured yet is measured, and kept in the zoo. Settings: `vitarium plugins study diversity`.

    Examples:

      vitarium study diversity demo-zoo --out diversity.html

      vitarium study diversity demo-zoo --figures figures --where "stage = 'finetune'"

      vitarium study diversity demo-zoo --set hessian_models=30 --set measure_missing=false
    """
    options = _Options(out, figures, where, images, settings, device, data_dir)
    _study(directory, "diversity", options, split.value)


@app.command("soups")
def soups(
    directory: ZooFolder,
    out: Annotated[Path, typer.Option(help=_PAGE)] = Path("soups.html"),
    figures: Figures = None,
    where: Where = "",
    images: Images = None,
    settings: Settings = None,
    device: Device = "auto",
    data_dir: DataDir = None,
) -> None:
    """When models may be averaged: soups, merges, barriers by kinship, and alignment.

    For the children of each parent, and across parents: what soups, epoch averages and other merges
    gain over the best single model, how far the loss rises between models, and where rearranging
    them helps. Chosen by validation images, reported on test images, with confidence intervals.
    Merged models are not added to the zoo. Settings: `vitarium plugins study soups`.

    Examples:

      vitarium study soups demo-zoo --out soups.html

      vitarium study soups demo-zoo --figures figures --where "stage = 'finetune'"

      vitarium study soups demo-zoo --set 'methods=["uniform_soup","ties"]' --set pairs=50
    """
    options = _Options(out, figures, where, images, settings, device, data_dir)
    _study(directory, "soups", options, "test")


@dataclass(frozen=True)
class _Options:
    """As the commands take them."""

    out: Path
    figures: Path | None
    where: str
    images: int | None
    settings: list[str] | None
    device: str
    data_dir: Path | None


def _study(directory: Path, name: str, options: _Options, split: "SplitName") -> None:
    """Run a study with a bar of progress, and print what it says."""
    from vitarium.studies import study

    console = Console(stderr=True, soft_wrap=True, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("opening", total=None)

        def report(what: str, done: int, of: int) -> None:
            bar.update(task, description=what, completed=done, total=of)

        found = study(
            Zoo.open(directory),
            name,
            out=options.out,
            figures=options.figures,
            where=options.where,
            split=split,
            images=options.images,
            device=options.device,
            data_dir=options.data_dir,
            report=report,
            **parsed(options.settings),
        )
    for sentence in found.sentences:
        print(sentence)
    also = f", {len(found.figures)} figures to {options.figures}" if found.figures else ""
    console.print(f"page written to {found.page}{also}", markup=False)
