"""`vitarium study NAME`: a command for every registered study, with its settings as options."""

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

import typer
from typer.core import TyperGroup

from vitarium.cli._options import UNCHECKED, DataDir, Device, Images, Split, SplitChoice, Where
from vitarium.cli._progress import progress_bar
from vitarium.cli._settings import Settings, parsed
from vitarium.cli.plugins import type_name
from vitarium.cli.zoo import ZooFolder
from vitarium.core.terminal import Terminal, print_line

if TYPE_CHECKING:
    from vitarium.core.registry import Plugin

SETTINGS = "Settings of this study"
Figures = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Write every figure as PNG and SVG, too, for a paper.",
        show_default=False,
        readable=UNCHECKED,
    ),
]
Page = Annotated[
    Path,
    typer.Option(help="The page: one file that opens without a network.", readable=UNCHECKED),
]
ZooOrWeights = Annotated[
    Path,
    typer.Argument(
        metavar="DIR", help="A zoo's folder, or one with files of weights.", readable=UNCHECKED
    ),
]
_RUNNING: dict[str, tuple[Any, Any]] = {
    "split": (Split, SplitChoice.test),
    "num_images": (Images, None),
    "device": (Device, "auto"),
    "data_dir": (DataDir, None),
}
"""Options of studies that run models, and their defaults."""


class StudyCommands(TyperGroup):
    """The registered studies; they are looked up when a command is asked for."""

    @property
    def commands(self) -> dict[str, Any]:
        from vitarium.core.registry import plugins

        return {name: _command(plugin) for name, plugin in plugins("study").items()}

    @commands.setter
    def commands(self, commands: Mapping[str, Any]) -> None:
        """Of a group without registered studies there are none."""


app = typer.Typer(cls=StudyCommands, no_args_is_help=True, rich_markup_mode="rich")


@app.callback()
def _studies() -> None:
    """Studies of a population, as pages with figures."""


def _command(plugin: "Plugin") -> Any:
    """A command whose options are the fields of the study's settings."""
    runs_models = plugin.facts["of"] == "zoo"
    options: dict[str, tuple[Any, Any]] = {
        "directory": (ZooFolder if runs_models else ZooOrWeights, inspect.Parameter.empty),
        "out": (Page, Path(f"{plugin.name}.html")),
        "figures": (Figures, None),
        "where": (Where, ""),
        **(_RUNNING if runs_models else {}),
        "set_": (Settings, None),
    }
    for name, write in plugin.facts["exports"].items():
        summary = (inspect.getdoc(write) or "").partition("\n")[0]
        looks: dict[str, Any] = {"metavar": "FILE", "show_default": False, "readable": UNCHECKED}
        option = typer.Option(f"--{name}", help=summary, **looks)
        options[name] = (Annotated[Path | None, option], None)
    options |= {name: _setting(name, f) for name, f in plugin.config.model_fields.items()}

    def run(**values: Any) -> None:
        _run(plugin, values)

    run.__doc__ = inspect.getdoc(plugin.function)
    keyword = inspect.Parameter.KEYWORD_ONLY
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(name, keyword, annotation=annotation, default=default)
            for name, (annotation, default) in options.items()
        ]
    )
    run.__annotations__ = {name: annotation for name, (annotation, _) in options.items()}
    single = typer.Typer(rich_markup_mode="rich", add_completion=False)
    single.command(plugin.name)(run)
    return typer.main.get_command(single)


def _setting(name: str, field: Any) -> tuple[Any, Any]:
    """An option of a field; without it the study's default holds."""
    default = field.get_default()
    default = ",".join(map(str, default)) if isinstance(default, tuple) else default
    words = " ".join((field.description or "").split())
    words += f" Default: {default}." if default not in (None, "", {}) else ""
    about: dict[str, Any] = {"help": words, "show_default": False, "rich_help_panel": SETTINGS}
    flag = f"--{name.replace('_', '-')}"
    if bool in (field.annotation, *get_args(field.annotation)):
        return Annotated[bool | None, typer.Option(f"{flag}/--no-{flag[2:]}", **about)], None
    metavar = type_name(field.annotation)
    metavar = "VALUE" if len(metavar) > 30 else metavar
    return Annotated[str | None, typer.Option(flag, metavar=metavar, **about)], None


def _value(text: str, annotation: Any) -> Any:
    """JSON, or else text; of a setting that is a list also `a,b`, and `none` for an empty one."""
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    if get_origin(annotation) is not tuple or isinstance(value, list):
        return value
    if value in ("", "none"):
        return []
    parts = text.split(",") if isinstance(value, str) else [text]
    return [_value(part, None) for part in parts]


def _settings_of(plugin: "Plugin", values: Mapping[str, Any]) -> dict[str, Any]:
    """From options, and from `--set`.

    Where a study chooses another plug-in and has its settings in a field `settings`, names that are
    none of its own go there.
    """
    fields = plugin.config.model_fields
    settings = {name: values[name] for name in fields if values[name] is not None}
    for name, value in settings.items():
        if isinstance(value, str):
            settings[name] = _value(value, fields[name].annotation)
    for name, value in parsed(values["set_"]).items():
        if name in fields or "settings" not in fields:
            settings[name] = value
        else:
            settings.setdefault("settings", {})[name] = value
    return settings


def _run(plugin: "Plugin", values: Mapping[str, Any]) -> None:
    """Run a study with a bar of progress, print its findings, and tell what was written."""
    from vitarium.studies._runner.study import study

    exports = {name: values[name] for name in plugin.facts["exports"] if values[name] is not None}
    common = {
        name: values[name] for name in ("out", "figures", "where", *_RUNNING) if name in values
    }
    if "split" in common:
        common["split"] = common["split"].value
    with progress_bar("opening", transient=True) as progress:
        result = study(
            values["directory"],
            plugin.name,
            exports=exports,
            progress=progress,
            **common,
            **_settings_of(plugin, values),
        )
    for line in (*result.sentences, *result.tables.terminal):
        print_line(line)
    written = f", {len(result.figures)} figures to {values['figures']}" if result.figures else ""
    written += "".join(f", {name} to {path}" for name, path in exports.items())
    Terminal(stderr=True, soft_wrap=True).print(f"page written to {result.page}{written}")
