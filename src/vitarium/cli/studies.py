"""`vitarium study`: what there is to find out about a whole population, as a page."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from vitarium.cli.options import DataDir, Device, Images, Split, SplitChoice, Where
from vitarium.cli.settings import Settings, parsed
from vitarium.cli.zoo import ZooFolder
from vitarium.store import Zoo

app = typer.Typer(help="Studies of a population, as pages with figures.", no_args_is_help=True)


@app.command("diversity")
def diversity(
    directory: ZooFolder,
    out: Annotated[
        Path, typer.Option(help="The page: one file that opens without a network.")
    ] = Path("diversity.html"),
    figures: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write every figure as PNG and SVG, too, for a paper.",
            show_default=False,
        ),
    ] = None,
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
            "diversity",
            out=out,
            figures=figures,
            where=where,
            split=split.value,
            images=images,
            device=device,
            data_dir=data_dir,
            report=report,
            **parsed(settings),
        )
    for sentence in found.sentences:
        print(sentence)
    also = f", {len(found.figures)} figures to {figures}" if found.figures else ""
    console.print(f"page written to {found.page}{also}", markup=False)
