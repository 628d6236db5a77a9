"""`vitarium study NAME`: a command for every registered study, with its settings as options."""

import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from vitarium.cli import _completion as completion
from vitarium.cli import _options as options
from vitarium.cli._layout import cut
from vitarium.cli._options import argument, path_argument, path_option
from vitarium.cli._progress import progress_bar, resumable
from vitarium.cli._tables import csv_text, print_text, terminal_width
from vitarium.core import files
from vitarium.core.cache import remembered
from vitarium.core.errors import NotWritable
from vitarium.core.file_faults import check_file, check_writable
from vitarium.core.filenames import file_name, user_path
from vitarium.core.parameters import parameter
from vitarium.core.printable import printable
from vitarium.core.terminal import Terminal, print_line

if TYPE_CHECKING:
    from vitarium.core.registry import Plugin

SETTINGS = "Settings of this study"
_FIGURES = "Write every figure as PNG and SVG, too, for a paper."
Figures = Annotated[Path | None, path_option(_FIGURES, metavar="DIR")]
Csv = Annotated[Path | None, path_option("Write every table as CSV, too.", metavar="DIR")]
_PAGE = (
    "The page: one file that opens without a network. Default: studies/{study}.html in the zoo; "
    "for a folder of weights, {study}.html."
)
StudyModels = Annotated[
    list[str] | None,
    argument(
        "Only these models of a zoo: ids, or their first digits.",
        metavar="MODEL",
        autocompletion=completion.models,
    ),
]
ZooOrWeights = Annotated[
    Path, path_argument("A zoo's folder, or a folder with files of weights.", metavar="DIR")
]
_DATA = "Dataset for all models. Default: each model's own."
_RUNNING: dict[str, tuple[Any, Any]] = {
    "split": (options.Split, "test"),
    "num_images": (options.Images, None),
    "data": (Annotated[str | None, options.option(_DATA)], None),
    "data_set": (options.DataSettings, None),
    "normalization": (options.Normalization, None),
    "device": (options.Device, "auto"),
    "data_dir": (options.DataDir, None),
}
"""Options of studies that run models, and their defaults."""


class StudyCommands(TyperGroup):
    """The registered studies; they are looked up when a command is asked for."""

    @property
    def commands(self) -> dict[str, Any]:
        descriptions = remembered("studies", _descriptions)
        return {name: _command(name, study) for name, study in descriptions.items()}

    @commands.setter
    def commands(self, commands: Mapping[str, Any]) -> None:
        """Of a group without registered studies there are none."""


app = typer.Typer(cls=StudyCommands, no_args_is_help=True, rich_markup_mode="rich")


@app.callback()
def _studies() -> None:
    """Study a population of models: findings, tables and figures on one page."""


def _descriptions() -> dict[str, dict[str, Any]]:
    """By name, what the command of each registered study is made of, as JSON."""
    from vitarium.core.registry import plugins

    return {
        name: {
            "help": inspect.getdoc(plugin.function),
            "of": plugin.facts["of"],
            "exports": {
                export: (inspect.getdoc(write) or "").partition("\n")[0]
                for export, write in plugin.facts["exports"].items()
            },
            "settings": {
                setting: options.described(field)
                for setting, field in plugin.config.model_fields.items()
            },
        }
        for name, plugin in plugins("study").items()
    }


def _command(name: str, study: Mapping[str, Any]) -> Any:
    """A command whose options are the fields of the study's settings."""
    runs_models = study["of"] == "zoo"
    folder = ZooOrWeights if study["of"] == "weights" else options.ZooFolder
    parameters: dict[str, tuple[Any, Any]] = {
        "directory": (folder, inspect.Parameter.empty),
        "models": (StudyModels, None),
        "out": (Annotated[Path | None, path_option(_PAGE.format(study=name))], None),
        "figures": (Figures, None),
        "csv": (Csv, None),
        "where": (options.Where, ""),
        **(_RUNNING if runs_models else {}),
        "set_": (options.Settings, None),
    }
    for export, summary in study["exports"].items():
        option = path_option(f"--{export}", summary, metavar="FILE")
        parameters[export] = (Annotated[Path | None, option], None)
    for setting, description in study["settings"].items():
        option = options.setting_option(setting, description, rich_help_panel=SETTINGS)
        parameters[setting] = (option, None)

    def run(**values: Any) -> None:
        from vitarium.core.registry import get

        _run(get("study", name), values)

    run.__doc__ = study["help"]
    return options.command(name, run, parameters)


def _settings_of(plugin: "Plugin", values: Mapping[str, Any]) -> dict[str, Any]:
    """From options, and from `--set`.

    Where a study chooses another plug-in and has its settings in a field `settings`, names that are
    none of its own go there.
    """
    fields = plugin.config.model_fields
    settings = {name: values[name] for name in fields if values[name] is not None}
    for name, value in settings.items():
        if isinstance(value, str):
            settings[name] = options.setting_value(value, fields[name].annotation)
    for name, value in options.parsed(values["set_"]).items():
        if name in fields or "settings" not in fields:
            settings[name] = value
        else:
            settings.setdefault("settings", {})[name] = value
    return settings


def _run(plugin: "Plugin", values: Mapping[str, Any]) -> None:
    """Run a study with a bar of progress, print its findings, and tell what was written."""
    measured = f"Numbers that were measured are kept in {values['directory']}"
    with resumable(measured if "data" in values else "No page was written"):
        from vitarium.studies._runner.study import study

        page, tables_json = _targets(plugin, user_path(values["directory"]), values["out"])
        writers = plugin.facts["exports"]
        exports = {name: values[name] for name in writers if values[name] is not None}
        names = ("figures", "where", *_RUNNING)
        common = {name: values[name] for name in names if name in values}
        if "data" in common:
            given = (common["data"], common.pop("data_set"))
            common["data"] = options.section("dataset", "--data", *given)
        if values["csv"] is not None:
            check_writable(values["csv"])
        with progress_bar("opening", transient=True) as progress:
            result = study(
                values["directory"],
                plugin.name,
                out=page,
                exports=exports,
                models=values["models"] or None,
                progress=progress,
                **common,
                **_settings_of(plugin, values),
            )
        if tables_json is not None:
            writers["json"](result.tables, tables_json)
    for sentence in result.sentences:
        print_text(sentence)
    width = terminal_width()
    for line in result.tables.terminal:
        print_line(cut(printable(line), width))
    written = f", {len(result.figures)} figures to {values['figures']}" if result.figures else ""
    if values["csv"] is not None:
        for title in result:
            text = csv_text([list(result[title].columns), *result[title].itertuples(index=False)])
            files.write(values["csv"] / f"{file_name(_plain(title))}.csv", text.encode())
        written += f", {len(list(result))} tables to {values['csv']}"
    if tables_json is not None:
        written += f", json to {tables_json}"
    written += "".join(f", {name} to {path}" for name, path in exports.items())
    Terminal(stderr=True, soft_wrap=True).print(f"page written to {result.page}{written}")


def _targets(plugin: "Plugin", directory: Path, out: Path | None) -> tuple[Path, Path | None]:
    """The page, and in a zoo also what the study exports as JSON: there the explorer finds both.

    Raises NotWritable and LeadsOutside before anything is computed.
    """
    from vitarium.zoo import studies

    if out is not None:
        return out, None
    if not files.exists(directory / "zoo.json"):
        return Path(f"{plugin.name}.html"), None
    page = studies.page_path(directory, plugin.name)
    try:
        files.check_inside(page.parent, directory)
        check_file(page)
    except NotWritable as error:
        elsewhere = f"or write the page elsewhere: {parameter('out', 'FILE')}"
        raise NotWritable(page, error.reason, f"{error.remedy}, {elsewhere}") from None
    has_json = "json" in plugin.facts["exports"]
    return page, studies.json_path(directory, plugin.name) if has_json else None


def _plain(title: str) -> str:
    """A table's title as a name of a file: small letters, and hyphens between words."""
    return "-".join(re.findall(r"\w+", title.lower()))
