"""`vitarium compress`: compact students of models."""

import json as json_texts
import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitarium.cli._options import DataDir, Device, Where
from vitarium.cli._selecting import selected
from vitarium.cli._settings import Settings, parsed
from vitarium.cli._tables import print_json, print_rows
from vitarium.cli.grow import PrecisionName, Workers
from vitarium.cli.zoo import Json, ZooFolder
from vitarium.core.errors import InvalidInput
from vitarium.core.numerals import size
from vitarium.core.terminal import Terminal
from vitarium.zoo import Zoo

if TYPE_CHECKING:
    from vitarium.compression.compress import Compression

_MINIVIT = "MiniViT"


def compress(
    directory: ZooFolder,
    models: Annotated[
        list[str] | None,
        typer.Argument(
            help="Ids, or beginnings of them; ID@3 is a model after its epoch 3.",
            show_default=False,
        ),
    ] = None,
    where: Where = "",
    method: Annotated[
        str, typer.Option("--method", "-m", help="How; `list` shows all methods.")
    ] = "minivit",
    share: Annotated[
        str | None,
        typer.Option(
            metavar="N|all|LIST",
            help="Consecutive blocks that share a set of weights: 2, all, or the groups' sizes: "
            "4,4,2,2; of a Swin one entry for each stage: 2,2,all,2. Default: 2.",
            show_default=False,
            rich_help_panel=_MINIVIT,
        ),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(
            metavar="first|mean|fit",
            help="What a shared matrix starts from: the group's first block, the blocks' mean, or "
            "the least-squares fit with head mixing. Default: fit.",
            show_default=False,
            rich_help_panel=_MINIVIT,
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="How long a student learns. Default: as long as its original did.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="A data set to learn from; default: the original's.", show_default=False),
    ] = None,
    objective: Annotated[
        str,
        typer.Option(
            help="What a student learns: weight_distillation, soft_distillation, "
            "hard_distillation, or supervised (without its original)."
        ),
    ] = "weight_distillation",
    train: Annotated[
        list[str] | None,
        typer.Option(
            "--train",
            metavar="NAME=VALUE",
            help="Any other factor of the training, e.g. optimizer.lr=5e-4, batch_size=256 or "
            "objective.hidden_weight=0. May be repeated.",
            show_default=False,
        ),
    ] = None,
    set_: Settings = None,
    name: Annotated[
        str, typer.Option(help="Stage of the students in the zoo's tables.")
    ] = "compressed",
    workers: Workers = None,
    precision: Annotated[
        PrecisionName, typer.Option(help="auto measures once what is fastest here.")
    ] = PrecisionName.auto,
    data_dir: DataDir = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Give models compact students: fewer parameters, the same number of blocks.

    A student starts from its original's weights and is taught by it. It is a model of the zoo, a
    child of its original: it can be measured, exported, and fine-tuned like all others. Several
    models, or a whole selection, are compressed side by side; stopped, the same command goes on.

    Examples:

      vitarium compress demo-zoo 3f2a --share 2

      vitarium compress demo-zoo --where "stage = 'finetune'" --share all --epochs 20

      vitarium compress demo-zoo 3f2a --objective soft_distillation --train optimizer.lr=5e-4

      vitarium compress demo-zoo --method list
    """
    from vitarium.compression.compress import compress as run

    if method == "list":
        methods()
        return
    zoo = Zoo.open(directory)
    named = selected(zoo, models, where, "compress")
    settings = parsed(set_)
    if share is not None:
        settings["share"] = sharing(share)
    if init is not None:
        settings["init"] = init
    recipe = {"objective": objective, **parsed(train, "--train", "optimizer.lr=5e-4")}
    compression = run(
        zoo,
        named,
        method,
        epochs=epochs,
        data=data,
        recipe=recipe,
        name=name,
        device=device,
        data_dir=data_dir,
        workers=workers,
        grow_options={"precision": precision.value},
        **settings,
    )
    _print(compression, json)


def sharing(text: str) -> Any:
    """ "2" -> 2, "all" -> "all", "4,4,2,2" or "[4,4,2,2]" -> [4, 4, 2, 2], "1,all" -> [1, "all"].

    Raises InvalidInput.
    """
    quoted = re.sub(r'"?\ball\b"?', '"all"', text)
    try:
        groups = json_texts.loads(quoted if "," not in text or "[" in text[:1] else f"[{quoted}]")
    except ValueError:
        groups = None
    if isinstance(groups, bool) or not (groups == "all" or isinstance(groups, int | list)):
        raise InvalidInput(
            f"--share {text}: write a number, 'all', or a list of them: 4,4,2,2 or 2,2,all,2"
        )
    return groups


def methods() -> None:
    """Print every operator that makes another model of one."""
    from vitarium.core.registry import plugins

    print_rows(
        [
            {"method": name.replace("_", "-"), "what": plugin.summary}
            for name, plugin in plugins("operator").items()
            if plugin.facts.get("architecture")
        ]
    )


def _print(compression: "Compression", json: bool) -> None:
    console = Terminal(stderr=True, soft_wrap=True)
    growth = compression.growth
    rows = compression.comparison.to_dict("records")
    if json:
        print_json(rows)
    else:
        print_rows([_columns(row) for row in rows], title="Students beside their originals")
    for row in rows:
        for when in ("before", "after"):
            if why := row[f"refused_{when}"]:
                console.print(f"no accuracy: {why}", style="red")
    for id, cause in {**growth.failed, **growth.skipped, **growth.diverged}.items():
        console.print(f"{id}: {cause}", style="red")
    if len(rows) == 1:
        id, path = rows[0]["student"], compression.zoo.path
        console.print(f"look at it: vitarium show {path} {id[:8]}")
    if not growth.complete or growth.diverged:
        raise typer.Exit(1)


def _columns(row: dict[str, Any]) -> dict[str, str]:
    def change(name: str, text: Any) -> str:
        return f"{text(row[f'{name}_before'])} -> {text(row[f'{name}_after'])}"

    return {
        "original": f"{row['model'][:8]}@{row['epoch']}",
        "student": row["student"],
        "parameters": change("parameters", "{:,}".format),
        "size": change("bytes", size),
        "in the zoo": change("bytes_in_zoo", size),
        "accuracy": change("accuracy", "{:.4f}".format),
        "ms per image": change("milliseconds", "{:.2f}".format),
    }
