"""Options that several commands have, and those that plug-ins' settings are given by."""

import inspect
import json
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer

from vitarium.cli import _completion as completion
from vitarium.cli._spelling import Command
from vitarium.core.errors import InvalidInput


def option(*texts: str, **settings: Any) -> Any:
    """An option by its names, none for that of the parameter, and its help."""
    *names, help = texts
    if "min" in settings:  # shorter than "<int range>", which leaves no room for long names
        settings.setdefault("metavar", "N")
    return typer.Option(*names, help=help, **settings)


def argument(help: str, **settings: Any) -> Any:
    return typer.Argument(help=help, **settings)


def help_of(function: Any) -> str:
    """A docstring as help: a paragraph is a line, which a terminal of any width breaks once."""
    paragraphs = (inspect.getdoc(function) or "").split("\n\n")
    return "\n\n".join(p if p.startswith(" ") else " ".join(p.split("\n")) for p in paragraphs)


# unchecked paths: the library says in a line that one cannot be read, instead of typer in a box
path_option = partial(option, readable=False)
path_argument = partial(argument, readable=False)


ZooFolder = Annotated[Path, path_argument("The zoo's folder.", metavar="DIR")]
Json = Annotated[bool, option("--json", "As JSON.")]
Csv = Annotated[bool, option("--csv", "As CSV.")]
DryRunJson = Annotated[bool, option("--json", "With --dry-run: as JSON.")]
DryRunCsv = Annotated[bool, option("--csv", "With --dry-run: as CSV.")]
Device = Annotated[str, option("auto (a GPU where there is one), cpu, cuda, or one GPU: cuda:1.")]
DataDir = Annotated[Path | None, path_option("Folder of data sets, searched first.")]
_WHERE = (
    "Only models for which this SQL condition on their factors and scores holds, "
    "e.g. \"lr < 0.01 and stage = 'finetune'\"."
)
Where = Annotated[str, option(_WHERE, metavar="SQL", show_default=False)]
Images = Annotated[
    int | None, option("Evaluate on at most this many images, stratified by class.", min=4)
]
Split = Annotated[Literal["train", "val", "test"], option("Split to evaluate on.")]
Models = Annotated[
    list[str] | None,
    argument(
        "Ids, or their first digits; ID@3: the model after its epoch 3.",
        metavar="MODEL",
        autocompletion=completion.models,
    ),
]
Stage = Annotated[str, option("Stage of the new models in the zoo's tables.")]
PRECISION = "auto: the fastest on this machine, measured once; bf16 is autocast."
Precision = Annotated[
    Literal["auto", "fp32", "tf32", "bf16"], option(PRECISION, rich_help_panel="Speed")
]
DryRun = Annotated[bool, option("--dry-run", "List what would be done; write nothing.")]
Wait = Annotated[bool, option("--wait", "Wait for another process that writes into the zoo.")]
Log = Annotated[
    list[str] | None,
    option(
        "Write the training for another tool, too: csv, tensorboard, wandb, mlflow. Repeat it for "
        "several.",
        metavar="LOGGER",
        autocompletion=completion.plugins("logger"),
    ),
]
LogSettings = Annotated[
    list[str] | None,
    option(
        "A setting of a logger, e.g. wandb.project=vits; see `vitarium plugins logger wandb`.",
        metavar="NAME=VALUE",
    ),
]
_WORKERS = (
    "Models trained at a time, each in its own process; 0: in this one. "
    "Default: one per core or GPU; on a cluster, as many as fit."
)
Workers = Annotated[int | None, option(_WORKERS, min=0)]
_SET = "A setting of the plug-in, see `vitarium plugins`; a list as [1,2]. May be repeated."
Normalization = Annotated[
    str | None,
    option(
        "For imported models whose normalization is unknown: `data` (as for the data set), or the "
        "mean and the standard deviation of pixels in [0, 1], e.g. 0.5/0.5 or "
        "0.49,0.48,0.45/0.25,0.24,0.26.",
        metavar="data|MEAN/STD",
    ),
]
DataSettings = Annotated[
    list[str] | None,
    option(
        "--data-set",
        "A setting of the data set named by --data, e.g. folder=photos. May be repeated.",
        metavar="NAME=VALUE",
    ),
]
Settings = Annotated[list[str] | None, option("--set", _SET, metavar="NAME=VALUE")]


def parsed(
    pairs: Iterable[str] | None,
    option: str = "--set",
    example: str = "check=false",
    *,
    of: Callable[..., Any] = lambda: None,
    config: type[Any] | None = None,
) -> dict[str, Any]:
    """["check=false", "mean=[0.5]"] -> {"check": False, "mean": [0.5]}; what is no JSON is text.

    With the config of the plug-in, a number for a setting that is text is text as it was typed: the
    beginning of an id may be of digits alone, or read 4e55.

    Raises InvalidInput for what is no pair, or is a parameter of its own of the function `of` that
    will be called with them.
    """
    settings: dict[str, Any] = {}
    for pair in pairs or ():
        name, separator, value = pair.partition("=")
        if not separator or not name:
            raise InvalidInput(f"{option} {pair}: write NAME=VALUE, e.g. {option} {example}")
        name = name.replace("-", "_")
        if name in inspect.signature(of).parameters:
            flag = f"--{name.replace('_', '-')}"
            raise InvalidInput(f"{option} {pair}: {name} is no setting of the plug-in; see {flag}")
        try:
            settings[name] = json.loads(value)
        except ValueError:
            settings[name] = value
        if isinstance(settings[name], int | float) and _is_text(config, name):
            settings[name] = value
    return settings


def _is_text(config: type[Any] | None, name: str) -> bool:
    """Whether the setting of that name is a text, or a text or none."""
    field = config.model_fields.get(name) if config else None
    kinds = {field.annotation, *get_args(field.annotation)} if field else set()
    return str in kinds and kinds <= {str, str | None, NoneType}


def section(
    kind: str, flag: str, name: str | None, settings: Iterable[str] | None
) -> dict[str, Any] | None:
    """A plug-in that is named by an option such as `--data`, with its settings from `--data-set`.

    Raises InvalidInput for settings of nothing, UnknownName, and InvalidConfig that says which
    option gives the settings.
    """
    pairs = list(settings or ())
    if name is None:
        if pairs:
            raise InvalidInput(f"{flag}-set {pairs[0]}: name what it is a setting of with {flag}")
        return None
    from vitarium.core.config import InvalidConfig
    from vitarium.core.registry import choose

    if not re.fullmatch(r"[\w-]+", name):  # a path, or settings beside the name
        example = f"{flag} image_folder {flag}-set folder={name if Path(name).is_dir() else 'PATH'}"
        raise InvalidInput(
            f"{flag} {name}: it takes the name of a plug-in alone (vitarium plugins {kind}), and "
            f"{flag}-set its settings, e.g. {example}"
        )
    name = name.replace("-", "_")
    values = parsed(pairs, f"{flag}-set", "NAME=VALUE")
    try:
        choose(kind, name, **values)
    except InvalidConfig as error:
        hint = f"settings are given by {flag}-set NAME=VALUE (vitarium plugins {kind} {name})"
        raise InvalidConfig(error.problems, f"{flag} {name}: {hint}:") from None
    return {"name": name, **values}


def described(field: Any) -> dict[str, Any]:
    """JSON of a field of a plug-in's settings: what `setting_option` needs to make an option."""
    default = field.get_default()
    if isinstance(default, tuple):
        default = ",".join(map(str, default))
    is_plain = default not in (None, "", {}) and not hasattr(type(default), "model_fields")
    suffix = f" Default: {default}." if is_plain else ""
    metavar = type_name(field.annotation)
    return {
        "help": " ".join((field.description or "").split()) + suffix,
        "is_switch": bool in (field.annotation, *get_args(field.annotation)),
        "metavar": metavar if len(metavar) <= 30 else "VALUE",
    }


def setting_option(name: str, description: Mapping[str, Any], **about: Any) -> Any:
    """The type of an option for a setting as `described`: a switch, or a text."""
    about["help"] = description["help"]
    flag = f"--{name.replace('_', '-')}"
    if description["is_switch"]:
        return Annotated[bool | None, typer.Option(f"{flag}/--no-{flag[2:]}", **about)]
    return Annotated[str | None, typer.Option(flag, metavar=description["metavar"], **about)]


def setting_value(text: str, annotation: Any) -> Any:
    """JSON, or else text; of a setting that is or can be a list also `a,b` and `2,all,[4,2]`.

    `none` is an empty list, where nothing else is possible.
    """
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    is_list = get_origin(annotation) is tuple
    can_be_list = is_list or any(get_origin(each) is tuple for each in get_args(annotation))
    if isinstance(value, list) or not can_be_list:
        return value
    if is_list and text in ("", "none"):
        return []
    if not is_list and "," not in text and not text.startswith("["):
        return value
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe").load(text if text.startswith("[") else f"[{text}]")
    except YAMLError:
        return value


def command(name: str, function: Callable[..., None], options: dict[str, tuple[Any, Any]]) -> Any:
    """A command of a function whose options, their types and defaults, are not in its code."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    function.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(option, keyword, annotation=annotation, default=default)
            for option, (annotation, default) in options.items()
        ]
    )
    function.__annotations__ = {option: annotation for option, (annotation, _) in options.items()}
    app = typer.Typer(rich_markup_mode="rich", add_completion=False)
    app.command(name, cls=Command, help=help_of(function))(function)
    return typer.main.get_command(app)


def type_name(annotation: Any) -> str:
    """A field's type as people write it: `int or none`, `linear, mlp`, `(number, number)`."""
    from vitarium.core.registry import Section

    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_name(arguments[0])
    if origin is Literal:
        return ", ".join(map(str, arguments))
    if origin in (Union, UnionType):
        return " or ".join(map(type_name, arguments))
    if origin is tuple and arguments[-1] is Ellipsis:
        return f"list of {type_name(arguments[0])}"
    if origin is tuple:
        return "(" + ", ".join(map(type_name, arguments)) + ")"
    if hasattr(annotation, "model_fields"):
        return "settings"
    if origin is dict:
        return "mapping"
    names = {float: "number", int: "whole number", str: "text", bool: "true or false"}
    if annotation in (None, NoneType):
        return "none"
    return "a name with settings" if annotation is Section else names.get(annotation, "any")
