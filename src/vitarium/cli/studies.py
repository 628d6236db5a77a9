"""`vitarium study`: what there is to find out about a whole population, as a page."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress

from vitarium.cli._options import UNCHECKED, DataDir, Device, Images, Split, SplitChoice, Where
from vitarium.cli._settings import Settings, parsed
from vitarium.cli.zoo import ZooFolder
from vitarium.core.errors import InvalidInput
from vitarium.core.file_faults import check_file
from vitarium.core.terminal import NameColumn, Terminal, print_line

if TYPE_CHECKING:
    from vitarium.data.loader import SplitName
    from vitarium.studies._runner.study import Studied


class EpochsChoice(StrEnum):
    """Which epochs of a model."""

    last = "last"
    all = "all"


app = typer.Typer(help="Studies of a population, as pages with figures.", no_args_is_help=True)


Figures = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Write every figure as PNG and SVG, too, for a paper.",
        show_default=False,
        readable=UNCHECKED,
    ),
]
_PAGE = "The page: one file that opens without a network."


@app.command("diversity")
def diversity(
    directory: ZooFolder,
    out: Annotated[Path, typer.Option(help=_PAGE, readable=UNCHECKED)] = Path("diversity.html"),
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
    out: Annotated[Path, typer.Option(help=_PAGE, readable=UNCHECKED)] = Path("soups.html"),
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


@app.command("lineage")
def lineage(
    directory: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            help="A zoo's folder, or one with files of weights.",
            readable=UNCHECKED,
        ),
    ],
    out: Annotated[Path, typer.Option(help=_PAGE, readable=UNCHECKED)] = Path("lineage.html"),
    figures: Figures = None,
    json: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the forest as JSON, too.",
            show_default=False,
            readable=UNCHECKED,
        ),
    ] = None,
    graphml: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write it as GraphML, for Gephi, yEd or networkx.",
            show_default=False,
            readable=UNCHECKED,
        ),
    ] = None,
    method: Annotated[
        str, typer.Option(help="How to recover it, see `vitarium plugins lineages`.")
    ] = "descent",
    clusters: Annotated[
        str, typer.Option(metavar="auto|K", help="How many trees there are, where that is known.")
    ] = "auto",
    truth: Annotated[
        bool | None,
        typer.Option(
            "--truth/--no-truth",
            help="Score it against the true lineage, of the zoo or of a table beside the files. "
            "Default: where it is known.",
            show_default=False,
        ),
    ] = None,
    compare: Annotated[
        bool, typer.Option(help="Run the usual other methods, too, and show them beside it.")
    ] = True,
    epochs: Annotated[
        EpochsChoice, typer.Option(help="Of a zoo: models' last epochs, or every kept one.")
    ] = EpochsChoice.last,
    where: Where = "",
    settings: Settings = None,
) -> None:
    """Which models descend from which, recovered from their weights alone.

    Of a zoo, or of any folder with .safetensors or pickled state dicts, of which no code is run. A
    page with the forest to look at, how sure each edge is, and what other methods say. A zoo knows
    the truth, and so does a folder with lineage.csv (columns model, parent) or an export's
    models.csv: then the forest is scored. Methods never see it. Settings of a method with --set,
    see `vitarium plugins lineage descent`.

    Examples:

      vitarium study lineage demo-zoo

      vitarium study lineage downloads --clusters 3 --json forest.json --graphml forest.graphml

      vitarium study lineage demo-zoo --method mother --no-compare --where "stage = 'finetune'"
    """
    chosen: dict[str, Any] = {
        "method": method,
        "settings": parsed(settings),
        "trees": _clusters(clusters),
        "truth": truth,
        "epochs": epochs.value,
        **({} if compare else {"compare": []}),
    }
    options = _Options(out, figures, where, None, None, "auto", None)
    for file in filter(None, (json, graphml)):
        check_file(file)
    found = _run(directory, "lineage", options, "test", chosen)
    from vitarium.lineage.files.forests import write_graphml, write_json
    from vitarium.studies.lineage.study import LineageFindings
    from vitarium.studies.lineage.text import lines

    findings = found.findings
    assert isinstance(findings, LineageFindings)
    recovered = findings.recovered
    if json:
        write_json(
            recovered.forest,
            json,
            truth=recovered.truth,
            scores=recovered.scores,
            info=recovered.info,
        )
    if graphml:
        write_graphml(recovered.forest, graphml, truth=recovered.truth, info=recovered.info)
    for line in ("", *lines(findings.forest)):
        print_line(line)
    _written(found, options, *filter(None, (json, graphml)))


def _clusters(text: str) -> int | str:
    if text == "auto" or (text.isdecimal() and int(text) > 0):
        return text if text == "auto" else int(text)
    raise InvalidInput(
        f"--clusters {text}: write auto, or how many trees there are, e.g. --clusters 6"
    )


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
    """Run a study, print what it says, and tell what was written."""
    _written(_run(directory, name, options, split, parsed(options.settings)), options)


def _run(
    directory: Path, name: str, options: _Options, split: "SplitName", settings: dict[str, Any]
) -> "Studied":
    """Run a study with a bar of progress, and print what it says."""
    from vitarium.studies._runner.study import study

    console = _console()
    columns = (NameColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("opening", total=None)

        def report(what: str, done: int, of: int) -> None:
            bar.update(task, description=what, completed=done, total=of)

        found = study(
            directory,
            name,
            out=options.out,
            figures=options.figures,
            where=options.where,
            split=split,
            images=options.images,
            device=options.device,
            data_dir=options.data_dir,
            report=report,
            **settings,
        )
    for sentence in found.sentences:
        print_line(sentence)
    return found


def _written(found: "Studied", options: _Options, *more: Path) -> None:
    also = f", {len(found.figures)} figures to {options.figures}" if found.figures else ""
    also += "".join(f", the forest to {path}" for path in more)
    _console().print(f"page written to {found.page}{also}")


def _console() -> Terminal:
    return Terminal(stderr=True, soft_wrap=True)
