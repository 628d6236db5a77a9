"""The command line: `vitarium`. Each module holds one group of commands, thin over the library."""

import re
import sys
from typing import Annotated

import typer

import vitarium
from vitarium.cli import (
    blueprints,
    compressing,
    exporting,
    grow,
    importing,
    keep,
    measuring,
    merging,
    plugins,
    query,
    studies,
    zoo,
)
from vitarium.errors import VitariumError
from vitarium.terminal import Terminal

app = typer.Typer(
    name="vitarium",
    help="Grow, keep, measure and use populations of vision transformers.",
    epilog="Start with: [bold]vitarium demo[/bold]",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(vitarium.__version__)
        raise typer.Exit


@app.callback()
def everywhere(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Grow, keep, measure and use populations of vision transformers."""


app.command("demo")(grow.demo)
app.command("grow")(grow.grow)
app.add_typer(blueprints.app, name="blueprint")
app.command("import")(importing.import_)
app.command("export")(exporting.export)
app.command("push")(exporting.push)
app.add_typer(studies.app, name="study")
app.command("ls")(zoo.ls)
app.command("show")(zoo.show)
app.command("query")(query.query)
app.command("verify")(keep.verify)
app.command("pack")(keep.pack)
app.command("unpack")(keep.unpack)
app.command("measure")(measuring.measure)
app.command("merge")(merging.merge)
app.command("compress")(compressing.compress)
app.command("plugins")(plugins.plugins)


def main() -> None:
    """Run the command line; bad input is one clear message and exit status 2."""
    try:
        app()
    except VitariumError as error:
        # further lines are indented, so that no name can imitate a line of ours
        message = re.sub(r"\n(?! )", "\n  ", f"error: {error}")
        Terminal(stderr=True, soft_wrap=True).print(message, style="red")
        sys.exit(error.exit_status)
    except BrokenPipeError:  # `vitarium ls | head`
        sys.stderr.close()
        sys.exit(1)
