"""The command line: `vitarium`. Each module holds one group of commands, thin over the library."""

import io
import os
import re
import sys
import warnings
from typing import Annotated, Any, TextIO

import typer
from typer.core import TyperGroup

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
from vitarium.errors import DamagedCache, VitariumError
from vitarium.printable import printable
from vitarium.store.query_limits import is_any_left_behind
from vitarium.terminal import Terminal


class Commands(TyperGroup):
    """All commands; Ctrl-C ends each of them with a word."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            raise typer.Exit(130) from None


app = typer.Typer(
    name="vitarium",
    cls=Commands,
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
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # of what the terminal cannot show
    try:
        _run()
    except SystemExit as end:
        if is_any_left_behind():  # at a regular end, it would be waited for, or complained about
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(end.code if isinstance(end.code, int) else 0)
        raise


def _run() -> None:
    try:
        with warnings.catch_warnings():
            _show_notes()
            app()
    except VitariumError as error:
        # further lines are indented, so that no name can imitate a line of ours
        message = re.sub(r"\n(?! )", "\n  ", f"error: {error}")
        Terminal(stderr=True, soft_wrap=True).print(message, style="red")
        sys.exit(error.exit_status)
    except BrokenPipeError:  # `vitarium ls | head`
        sys.stderr.close()
        sys.exit(1)


def _show_notes() -> None:
    """Show what was made anew as a note of one line, other warnings as ever."""
    show = warnings.showwarning

    def show_note(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, DamagedCache):
            print(printable(f"note: {message}"), file=sys.stderr)
        else:
            show(message, category, filename, lineno, file, line)

    warnings.showwarning = show_note
