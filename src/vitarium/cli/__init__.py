"""The command line: `vitarium`. Each module holds one group of commands, thin over the library."""

import errno
import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import vitarium
from vitarium.cli import (
    annotating,
    blueprints,
    combining,
    compressing,
    exploring,
    exporting,
    grow,
    importing,
    keep,
    lessons,
    measuring,
    merging,
    plugins,
    query,
    removing,
    studies,
    tuning,
    zoo,
)
from vitarium.cli._options import help_of, option
from vitarium.cli._spelling import Command
from vitarium.cli._streams import prepare_streams, silence, warnings_in_a_line
from vitarium.core.errors import VitariumError
from vitarium.core.file_faults import fault
from vitarium.core.terminal import print_note
from vitarium.zoo._query_limits import is_any_left_behind

_INTERRUPTED = 130  # exit status of Ctrl-C


_HELP = """Grow, keep, measure and use populations of vision transformers.

A zoo is a folder of models. A blueprint says which models to train: grow trains them, ls lists \
them, measure and study compare them, merge and compress make new ones from them.

A model is named by its id or its first digits: vitarium show demo-zoo 3f2a. Every command's \
--help has examples; after --install-completion, the shell completes ids and names."""


class Commands(TyperGroup):
    """All commands; Ctrl-C ends each of them with a word, which typer would not say."""

    def list_commands(self, ctx: Any) -> list[str]:
        """In the order of the panels, in which people come to need them."""
        return [name for commands in _PANELS.values() for name, _ in commands]

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(_complain("interrupted", _INTERRUPTED)) from None


app = typer.Typer(
    name="vitarium",
    cls=Commands,
    epilog="Start with: [bold]vitarium demo[/bold]",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(requested: bool) -> None:
    if requested:
        print(vitarium.__version__)
        raise typer.Exit


@app.callback(help=_HELP)
def everywhere(
    version: Annotated[
        bool, option("--version", "Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Options of vitarium itself."""


_PANELS: dict[str, list[tuple[str, Any]]] = {
    "Get a zoo": [
        ("demo", grow.demo),
        ("grow", grow.grow),
        ("tune", tuning.tune),
        ("blueprint", blueprints.app),
        ("import", importing.import_),
    ],
    "Look at it": [
        ("ls", zoo.ls),
        ("show", zoo.show),
        ("query", query.query),
        ("explore", exploring.explore),
    ],
    "Measure and study it": [
        ("measure", measuring.measure),
        ("study", studies.app),
    ],
    "Make new models from them": [
        ("merge", merging.merge),
        ("compress", compressing.compress),
        ("lessons", lessons.app),
    ],
    "Share it": [
        ("export", exporting.export),
        ("push", exporting.push),
    ],
    "Maintain it": [
        ("verify", keep.verify),
        ("pack", keep.pack),
        ("unpack", keep.unpack),
        ("rm", removing.rm),
        ("archive", combining.archive),
        ("merge-zoos", combining.merge_zoos),
        ("tag", annotating.tag),
        ("note", annotating.note),
        ("rename-stage", annotating.rename_stage),
    ],
    "Extend vitarium": [
        ("plugins", plugins.plugins),
    ],
}
"""The commands in the order in which `vitarium --help` shows them."""
_CLASSES: dict[str, type[Command]] = {"compress": compressing.CompressCommand}

for _panel, _commands in _PANELS.items():
    for _name, _command in _commands:
        if isinstance(_command, typer.Typer):
            app.add_typer(_command, name=_name, rich_help_panel=_panel)
        else:
            _class = _CLASSES.get(_name, Command)
            _add = app.command(_name, cls=_class, help=help_of(_command), rich_help_panel=_panel)
            _add(_command)


_OF_STREAMS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF}
"""What can be wrong with an output; an error of a file names the file."""


def main() -> None:
    """Run it. A fault is one line and an exit status: input 2, the machine 1, Ctrl-C 130."""
    prepare_streams()
    with warnings_in_a_line():
        status = _status()
    if is_any_left_behind():  # at a regular end, it would be waited for, or complained about
        sys.stderr.flush()
        os._exit(status if isinstance(status, int) else 0)
    sys.exit(status)


def _status() -> int | str | None:
    """Run a command; gives the exit status."""
    try:
        try:
            app()
        except SystemExit as end:
            status = end.code
        sys.stdout.flush()
    except VitariumError as error:
        return _complain(str(error), error.exit_status)
    except KeyboardInterrupt:
        return _complain("interrupted", _INTERRUPTED)
    except BrokenPipeError:  # `vitarium ls | head`
        silence(sys.stdout)
        return 1
    except OSError as error:
        if isinstance(error.filename, str):
            file_fault = fault(error, Path(error.filename), writing=False)
            return _complain(str(file_fault), file_fault.exit_status)
        if error.errno in _OF_STREAMS:
            silence(sys.stdout)
            return _complain(f"cannot write the output: {error.strerror}", 1)
        return _complain(" ".join(str(error).split()), 1)
    except UnicodeEncodeError as error:  # of a library that takes no other names than UTF-8
        name = ascii(error.object)
        return _complain(f"{name} is no UTF-8, and a library does not take it; rename it", 2)
    return status


def _complain(text: str, status: int) -> int:
    """Print what is wrong; gives the exit status, which is 130 where the user ended it."""
    if status != _INTERRUPTED:
        # further lines are indented, so that no name can imitate a line of ours
        text = re.sub(r"\n(?! )", "\n  ", f"error: {text}")
    try:
        print_note(text, style="yellow" if status == _INTERRUPTED else "red")
        sys.stderr.flush()
    except OSError:  # standard error may be as full as the output
        silence(sys.stderr)
    return status
