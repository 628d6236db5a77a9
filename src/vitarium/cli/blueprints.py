"""`vitarium blueprint list|show|check`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from vitarium.cli import _completion as completion
from vitarium.cli._blueprint import checked_blueprint, print_normalizations
from vitarium.cli._options import Csv, DataDir, Json, argument, path_option
from vitarium.cli._spelling import Command
from vitarium.cli._tables import HAS_ALL, print_json, print_rows
from vitarium.core.cache import remembered
from vitarium.core.numerals import counted
from vitarium.core.printable import printable
from vitarium.core.terminal import Terminal

app = typer.Typer(
    help="List, show and check blueprints: files that say which models to grow.",
    no_args_is_help=True,
)

Source = Annotated[
    str,
    argument(
        "A YAML file, or a name from `vitarium blueprint list`.",
        metavar="BLUEPRINT",
        autocompletion=completion.blueprints,
    ),
]


@app.command("list", cls=Command)
def list_(json: Json = False, csv: Csv = False) -> None:
    """List the blueprints that vitarium ships.

    Example:  vitarium blueprint list
    """
    rows = remembered("blueprints", _shipped)
    print_rows(rows, spare=["stages"], complete=HAS_ALL, as_json=json, as_csv=csv)


def _shipped() -> list[dict[str, Any]]:
    from vitarium.blueprint import library, plan

    rows = []
    for blueprint in library().values():
        planned = plan(blueprint)
        stages = " + ".join(f"{n} {stage}" for stage, n in planned.stages.items())
        row = {"name": blueprint.name, "models": len(planned), "stages": stages}
        rows.append({**row, "title": blueprint.title})
    return rows


@app.command(cls=Command)
def show(blueprint: Source, json: Json = False, csv: Csv = False) -> None:
    """Print a blueprint: the file as it is, or with --json every model of its plan, resolved.

    With --csv, a row per model and a column per factor.

    To write your own, start from one of them:

      vitarium blueprint show demo > mine.yaml
    """
    from rich.syntax import Syntax

    from vitarium.blueprint import Blueprint, plan

    loaded = Blueprint.load(blueprint)
    if csv:
        models = plan(loaded).models
        rows = [{"id": m.id, "stage": m.stage, "parent": m.parent, **m.described()} for m in models]
        print_rows(rows, as_json=json, as_csv=csv)
    elif json:
        print_json([model.factors() for model in plan(loaded).models])
    elif (console := Terminal()).is_terminal:
        text = printable(loaded.text, newline="\n")
        console.print(Syntax(text, "yaml", background_color="default"))
    else:
        print(loaded.text, end="")


@app.command(cls=Command)
def check(
    blueprint: Source,
    zoo: Annotated[
        Path | None, path_option("Zoo with the models that stages start from. Default: NAME-zoo.")
    ] = None,
    data_dir: DataDir = None,
    json: Json = False,
    csv: Csv = False,
) -> None:
    """Check a blueprint and count its models. Exit status 2 if it is not valid.

    Every model is built without memory, and its parent's weights are fitted to it: so it is known
    before anything is trained whether sizes, channels and heads go together.

    Example:  vitarium blueprint check mine.yaml
    """
    checked = checked_blueprint(blueprint, zoo, data_dir)
    if csv:
        rows = [{"stage": stage, "models": count} for stage, count in checked["stages"].items()]
        print_rows(rows, as_json=json, as_csv=csv)
        return
    if json:
        names = ("models", "stages", "adapted", "normalization", "waiting", "samples")
        print_json({name: checked[name] for name in names})
        return
    console = Terminal()
    stages = ", ".join(f"{count} {stage}" for stage, count in checked["stages"].items())
    console.print(f"valid: {counted(checked['models'], 'model')} ({stages})")
    for stage, sample in checked["samples"].items():
        console.print(f"{stage}: {sample}")
    for stage, changes in checked["adapted"].items():
        console.print(f"{stage}: its parents' weights are adapted: {', '.join(changes)}")
    print_normalizations(console, checked["normalization"])
    for stage, first in checked["waiting"].items():
        console.print(f"{stage}: planned when {first} is grown, which may stop early")
