"""`vitarium measure`: numbers of models, and of pairs of them."""

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vitarium.cli import _options as options
from vitarium.cli._options import argument, option
from vitarium.cli._progress import progress_bar
from vitarium.cli._tables import print_json, print_rows
from vitarium.core.errors import InvalidInput
from vitarium.core.numerals import is_number
from vitarium.core.terminal import Terminal
from vitarium.zoo import Zoo

if TYPE_CHECKING:
    import pandas as pd

    from vitarium.evaluation.checkpoints import Epochs

_SHOWN_REFUSALS = 8
_ID = re.compile(r"\b[0-9a-f]{12}(@\d+)?\b")


def measure(
    directory: options.ZooFolder,
    measures: Annotated[
        list[str] | None,
        argument(
            "Names; `vitarium plugins measures` lists all. Default: every measure of single "
            "models that takes at most a forward pass."
        ),
    ] = None,
    where: options.Where = "",
    epochs: Annotated[
        str, option("Epochs to measure, e.g. 0,5,10.", metavar="all|last|LIST")
    ] = "last",
    pairs: Annotated[
        Literal["same-parent", "same-stage", "all"], option("Pairs, for measures of pairs.")
    ] = "same-stage",
    split: options.Split = "test",
    num_images: options.Images = None,
    data: Annotated[
        str | None, option("Dataset for all models. Default: each model's own.")
    ] = None,
    data_dir: options.DataDir = None,
    set_: options.Settings = None,
    device: options.Device = "auto",
    overwrite: Annotated[bool, option("--overwrite", "Recompute existing results.")] = False,
    force: Annotated[
        bool, option("--force", "Evaluate on training images, too, and mark such results.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Measure models and pairs of models: weights, predictions, loss landscape, robustness.

    Results are stored in the zoo (`vitarium query DIR "SELECT * FROM records"`) and reused. If it
    is interrupted, run the same command to resume. A model or pair that cannot be measured is
    reported; the others are still measured.

    Examples:

      vitarium measure demo-zoo

      vitarium measure demo-zoo accuracy calibration_error --where "stage = 'finetune'"

      vitarium measure demo-zoo agreement cka --pairs same-parent

      vitarium measure demo-zoo weight_norm --epochs all --set order=1
    """
    from vitarium.measures._runner.jobs import quick
    from vitarium.measures._runner.measure import measure as run

    zoo = Zoo.open(directory)
    with progress_bar("measuring") as progress:
        table = run(
            zoo,
            measures or quick(),
            where=where,
            epochs=_epochs(epochs),
            pairs=pairs,
            split=split,
            num_images=num_images,
            data=data,
            device=device,
            data_dir=data_dir,
            overwrite=overwrite,
            force=force,
            progress=progress,
            **options.parsed(set_, of=run),
        )
    if json:
        print_json(table.to_dict("records"))
    else:
        print_rows(_summary(zoo, table), title=f"{directory}: over models or pairs")
    _print_refusals(table)
    if len(table) and (table["refused"] != "").all():
        raise typer.Exit(2)


def _epochs(text: str) -> "Epochs":
    """Raises InvalidInput for what are no epochs."""
    if text == "all":
        return "all"
    if text == "last":
        return "last"
    numbers = [part.strip() for part in text.split(",")]
    if not all(is_number(number) for number in numbers):
        raise InvalidInput(f"--epochs {text}: write all, last, or numbers as in 0,5,10")
    return [int(number) for number in numbers]


def _summary(zoo: Zoo, table: "pd.DataFrame") -> list[dict[str, Any]]:
    """The spread of each measure over whole models, and of its parts but tensors and layers."""
    measured = table[table["refused"] == ""].astype({"part": str})
    first = measured["part"].str.split("/").str[0]
    tensors = {name for model in measured["model"].unique()[:1] for name in zoo.checkpoint(model)}
    totals = measured[~first.str.contains(".", regex=False) & ~first.isin(tensors)]
    return [
        {
            "measure": measure,
            "part": part,
            "count": len(values),
            "mean": values["value"].mean(),
            "std": values["value"].std(ddof=0),
            "min": values["value"].min(),
            "max": values["value"].max(),
            "unit": values["unit"].iloc[0],
        }
        for (measure, part), values in totals.groupby(["measure", "part"], sort=False)
    ]


def _print_refusals(table: "pd.DataFrame") -> None:
    """Print why there is no value; reasons that differ only in the models' ids appear once."""
    refused = table[table["refused"] != ""]
    if refused.empty:
        return
    reasons_by_text: dict[tuple[str, str], list[str]] = {}
    for measure, reason in zip(refused["measure"], refused["refused"], strict=True):
        reasons_by_text.setdefault((measure, _ID.sub("…", reason)), []).append(reason)
    console = Terminal(stderr=True, soft_wrap=True)
    console.print(f"{len(refused):,} could not be measured:", style="yellow")
    for (measure, _), reasons in list(reasons_by_text.items())[:_SHOWN_REFUSALS]:
        many = f" ({len(reasons):,} times, e.g.)" if len(reasons) > 1 else ""
        console.print(f"  {measure}{many}: {reasons[0]}")
    if (more := len(reasons_by_text) - _SHOWN_REFUSALS) > 0:
        console.print(f"  … and {more} more reasons; --json has all")
