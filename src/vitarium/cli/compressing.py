"""`vitarium compress`: compact students of models."""

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitarium.cli import _completion as completion
from vitarium.cli import _options as options
from vitarium.cli._options import option
from vitarium.cli._progress import progress_bar, resumable
from vitarium.cli._spelling import Command
from vitarium.cli._tables import HAS_ALL, print_rows
from vitarium.cli.plugins import entries_of
from vitarium.core.cache import remembered
from vitarium.core.numerals import size
from vitarium.core.terminal import Terminal

if TYPE_CHECKING:
    from vitarium.compression.compress import Compression
    from vitarium.core.registry import Plugin

_SETTINGS = "vitarium.settings"


class CompressCommand(Command):
    """Has an option for each setting of the registered methods, which are looked up when it runs.

    A setting that is called like another option is set by `--set`.
    """

    def get_params(self, ctx: Any) -> list[Any]:
        *params, help_option = super().get_params(ctx)
        names = {name for param in params for name in param.opts}
        settings = [option for option in self._settings if not names & set(option.opts)]
        return [*params, *settings, help_option]

    @cached_property
    def _settings(self) -> list[Any]:
        named = {
            name: (_setting(name, setting), None)
            for name, setting in remembered("compressions", _descriptions).items()
        }
        params = options.command("settings", lambda: None, named).params
        return [param for param in params if param.name in named]


def _descriptions() -> dict[str, dict[str, Any]]:
    """By name, what the option of each setting is made of, as JSON; of the first method with it."""
    named: dict[str, dict[str, Any]] = {}
    for method, plugin in methods().items():
        for name, field in plugin.config.model_fields.items():
            about = {"method": method, "panel": plugin.facts["title"]}
            named.setdefault(name, {**about, **options.described(field)})
    return named


def _setting(name: str, setting: Mapping[str, Any]) -> Any:
    """The type of an option whose value is noted in the context, under the setting's name."""

    def note(ctx: typer.Context, value: Any) -> None:
        if isinstance(value, str):
            field = methods()[setting["method"]].config.model_fields[name]
            value = options.setting_value(value, field.annotation)
        if value is not None:
            ctx.meta.setdefault(_SETTINGS, {})[name] = value

    about = {"rich_help_panel": setting["panel"], "expose_value": False, "callback": note}
    return options.setting_option(name, setting, **about)


def compress(
    ctx: typer.Context,
    directory: options.ZooFolder,
    models: options.Models = None,
    where: options.Where = "",
    method: Annotated[
        str,
        option(
            "--method",
            "-m",
            "Method (`list` to show all).",
            autocompletion=completion.compressions,
        ),
    ] = "minivit",
    epochs: Annotated[
        int | None,
        option(
            "Epochs of training; 0: none. Default: 0 for post-training methods, else as many as "
            "the original's.",
            min=0,
        ),
    ] = None,
    data: Annotated[str | None, option("Data set to train on. Default: the original's.")] = None,
    data_set: options.DataSettings = None,
    normalization: options.Normalization = None,
    objective: Annotated[
        str | None,
        option(
            "Training objective: weight_distillation (default), soft_distillation, "
            "hard_distillation, or supervised (not taught by the original)."
        ),
    ] = None,
    train: Annotated[
        list[str] | None,
        option(
            "--train",
            "Any other factor of the training, e.g. optimizer.lr=5e-4, batch_size=256 or "
            "objective.hidden_weight=0. May be repeated.",
            metavar="NAME=VALUE",
        ),
    ] = None,
    set_: options.Settings = None,
    stage: options.Stage = "compressed",
    workers: options.Workers = None,
    precision: options.Precision = "auto",
    data_dir: options.DataDir = None,
    device: options.Device = "auto",
    json: options.Json = False,
    csv: options.Csv = False,
) -> None:
    """Compress models: students that take less, trained or not, beside their originals.

    A student is what the method makes of its original's weights. Post-training methods are used as
    they are, unless --epochs says how long the student is trained; others are taught by the
    original. It is a model of the zoo, a child of its original: it can be measured, exported, and
    fine-tuned like all others. A method that splits a model by classes makes and trains its parts,
    then the model that fuses them. Several models are compressed side by side. If it is
    interrupted, run the same command to resume.

    Examples:

      vitarium compress demo-zoo 3f2a --share 2

      vitarium compress demo-zoo --where "stage = 'finetune'" --share all --epochs 20

      vitarium compress demo-zoo 3f2a --objective soft_distillation --train optimizer.lr=5e-4

      vitarium compress demo-zoo 3f2a --method matvit_member --set granularity=0.5

      vitarium compress demo-zoo 3f2a --method ed_vit --set parts=2

      vitarium compress demo-zoo --method list
    """
    if method == "list":
        compressing = [entry for entry in entries_of("operator") if entry["compresses"]]
        print_rows({"method": entry["name"], "what": entry["what"]} for entry in compressing)
        return
    recipe = options.parsed(train, "--train", "optimizer.lr=5e-4")
    if objective is not None:
        recipe = {"objective": objective, **recipe}
    with (
        resumable(f"Finished epochs of students are kept in {directory}"),
        progress_bar(method, transient=True) as operator_progress,
    ):
        from vitarium.compression.compress import compress as run

        compression = run(
            directory,
            method,
            models=models or None,
            where=where,
            epochs=epochs,
            data=options.section("dataset", "--data", data, data_set),
            normalization=normalization,
            recipe=recipe,
            stage=stage,
            device=device,
            data_dir=data_dir,
            workers=workers,
            operator_progress=operator_progress,
            grow_options={"precision": precision},
            **ctx.meta.get(_SETTINGS, {}),
            **options.parsed(set_, of=run),
        )
    _print(compression, as_json=json, as_csv=csv)


def methods() -> dict[str, "Plugin"]:
    """Every operator that makes a smaller model of one."""
    from vitarium.core.registry import plugins

    return {name: p for name, p in plugins("operator").items() if p.facts["compression"]}


def _print(compression: "Compression", *, as_json: bool, as_csv: bool) -> None:
    console = Terminal(stderr=True, soft_wrap=True)
    growth = compression.growth
    rows = compression.comparison.to_dict("records")
    if as_json or as_csv:
        print_rows(rows, as_json=as_json, as_csv=as_csv)
    else:
        print_rows(
            [_columns(row) for row in rows],
            title="Students beside their originals",
            spare=["in the zoo", "size", "ms per image"],
            complete=HAS_ALL,
        )
    for row in rows:
        for when in ("before", "after"):
            if why := row[f"refused_{when}"]:
                console.print(f"no accuracy: {why}", style="red")
    if growth:
        for id, cause in {**growth.failed, **growth.skipped, **growth.diverged}.items():
            console.print(f"{id}: {cause}", style="red")
    if len(rows) == 1:
        id, path = rows[0]["student"], compression.zoo.path
        console.print(f"look at it: vitarium show {path} {id[:8]}")
    if growth and (not growth.complete or growth.diverged):
        raise typer.Exit(1)


def _columns(row: dict[str, Any]) -> dict[str, str]:
    def change(name: str, text: Any) -> str:
        return f"{text(row[f'{name}_before'])} -> {text(row[f'{name}_after'])}"

    return {
        "original": f"{row['model'][:8]}@{row['epoch']}",
        "student": row["student"][:8],
        **({"part": row["part"]} if "part" in row else {}),
        "parameters": change("parameters", "{:,}".format),
        "size": change("bytes", size),
        "in the zoo": change("bytes_in_zoo", size),
        "accuracy": change("accuracy", "{:.4f}".format),
        "ms per image": change("milliseconds", "{:.3g}".format),
        "times as fast": "{speedup:.2g} ({speedup_low:.2g} to {speedup_high:.2g})".format(**row),
    }
