"""What the shell completes: ids of a zoo's models, and names of plug-ins and blueprints.

Nothing here imports torch, but for the first time that plug-ins are asked for; and nothing raises:
what cannot be completed is left to the user.
"""

from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path

import typer

Complete = Callable[[typer.Context, str], Iterable[str]]


def _quiet(complete: Complete) -> Callable[[typer.Context, str], list[str]]:
    """Those that begin as the word does, and none where anything is wrong."""

    @wraps(complete)
    def completed(ctx: typer.Context, incomplete: str) -> list[str]:
        try:
            return [name for name in complete(ctx, incomplete) if name.startswith(incomplete)]
        except Exception:  # a traceback in the midst of a command line helps no one
            return []

    return completed


@_quiet
def models(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """Ids of the zoo's models."""
    from vitarium.zoo._model_files import model_stamps

    return model_stamps(_directory(ctx))


@_quiet
def measures_and_models(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """Names of measures, and ids."""
    return [*names_of("measure"), *models(ctx, incomplete)]


def plugins(kind: str) -> Callable[[typer.Context, str], list[str]]:
    """Names of the plug-ins of a kind, as they are written and with hyphens."""

    @_quiet
    def complete(ctx: typer.Context, incomplete: str) -> Iterable[str]:
        names = names_of(kind)
        return [name.replace("_", "-") for name in names] if "-" in incomplete else names

    return complete


@_quiet
def methods(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """Operators, and `list`."""
    return [*plugins("operator")(ctx, incomplete), "list"]


@_quiet
def compressions(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """Operators that compress a model, and `list`."""
    from vitarium.cli.plugins import entries_of

    return [*(entry["name"] for entry in entries_of("operator") if entry["compresses"]), "list"]


@_quiet
def kinds(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """Kinds of plug-ins."""
    from vitarium.core.registry import KINDS

    return KINDS


@_quiet
def of_chosen_kind(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """Plug-ins of the kind that was written before."""
    kind: str = ctx.params.get("kind") or ""
    return plugins(kind)(ctx, incomplete)


@_quiet
def blueprints(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """Blueprints that vitarium ships, and YAML files here."""
    from importlib.resources import files

    library = files("vitarium") / "blueprint" / "library"
    shipped = (Path(file.name) for file in library.iterdir())
    names = [file.stem for file in shipped if file.suffix == ".yaml"]
    here = Path(incomplete).parent if "/" in incomplete else Path()
    return [*names, *(str(file) for file in here.glob("*.y*ml"))]


@_quiet
def columns(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """Columns of the zoo's models, after the last comma."""
    from vitarium.zoo.query import Database

    before, comma, _ = incomplete.rpartition(",")
    database = Database(_directory(ctx))
    names = [
        "model",
        "before",
        "after",
        "score",
        *database.short_names,
        *database.columns["models"],
    ]
    return [f"{before}{comma}{name}" for name in names]


@_quiet
def stages(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """Stages of the zoo, as they are shown."""
    from vitarium.zoo.query import Database

    return [
        row[0] for row in Database(_directory(ctx)).rows("SELECT DISTINCT stage FROM models")[1]
    ]


@_quiet
def stages_of_blueprint(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """Stages of the blueprint that is grown, after the last comma."""
    from vitarium.blueprint.blueprint import read_values

    before, comma, _ = incomplete.rpartition(",")
    values, _ = read_values(ctx.params.get("blueprint") or ctx.args[0])
    return [f"{before}{comma}{name}" for name in values["stages"]]


def names_of(kind: str) -> list[str]:
    """Of the plug-ins of a kind."""
    from vitarium.cli.plugins import entries_of

    return [entry["name"] for entry in entries_of(kind)]


def _directory(ctx: typer.Context) -> Path:
    """The zoo's folder: the first argument, which is not looked at yet behind an open option."""
    return Path(ctx.params.get("directory") or ctx.args[0])
