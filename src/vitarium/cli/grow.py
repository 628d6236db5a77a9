"""`vitarium demo` and `vitarium grow`."""

import shutil
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vitarium.cli import _completion as completion
from vitarium.cli import _options as options
from vitarium.cli._blueprint import read_blueprint
from vitarium.cli._estimate import estimate_of, print_estimate
from vitarium.cli._models import print_models, titled
from vitarium.cli._options import argument, option, path_option
from vitarium.cli._progress import RESUME, resumable
from vitarium.core.errors import InvalidInput
from vitarium.core.numerals import counted
from vitarium.core.terminal import print_note
from vitarium.engine.pools._worker_server import start_worker_server

if TYPE_CHECKING:
    from vitarium.blueprint import Blueprint

_OTHERWISE = " Default: as the blueprint's numerics say, or "
_DEVICE = f"auto (a GPU where there is one), cpu, cuda, or one GPU: cuda:1.{_OTHERWISE}auto."
_ray_option = partial(option, rich_help_panel="On a Ray cluster")
_speed_option = partial(option, rich_help_panel="Speed")
_part_option = partial(option, rich_help_panel="A part of the plan")


def demo(
    zoo: Annotated[Path, path_option("The zoo's folder.")] = Path("demo-zoo"),
    workers: options.Workers = None,
    device: options.Device = "auto",
) -> None:
    """Grow the demo zoo on handwritten digits: minutes on two CPU cores, no download.

    Small ViTs are pre-trained on MNIST digits, supervised and contrastive, and fine-tuned on
    another laboratory's digits; a control starts from scratch.

    Example:  vitarium demo
    """
    start_worker_server(device, workers, None)
    from vitarium.blueprint import Blueprint

    print_note(f"Growing the demo zoo in {zoo}", style="bold")
    _grow(Blueprint.load("demo"), zoo, workers=workers, device=device)
    program = Path(sys.argv[0])  # .venv/bin/vitarium, as `make demo` runs it
    if shutil.which("vitarium") or program.name != "vitarium":
        program = Path("vitarium")
    table = f"import vitarium; print(vitarium.Zoo.open('{zoo}').models())"
    print_note(
        f"\nThe zoo lies in {zoo}. Look around:\n"
        f"  {program} explore {zoo} --open\n"
        f"  {program} ls {zoo}\n"
        f"  {program} show {zoo} MODEL\n"
        f'  {program.with_name("python")} -c "{table}"'
    )


def grow(
    blueprint: Annotated[
        str,
        argument(
            "A YAML file, or a name of `vitarium blueprint list`.",
            autocompletion=completion.blueprints,
        ),
    ],
    zoo: Annotated[Path | None, path_option("The zoo's folder. Default: NAME-zoo.")] = None,
    stages: Annotated[
        str,
        _part_option(
            "Only models of these stages, and what they start from.",
            metavar="NAME,...",
            autocompletion=completion.stages_of_blueprint,
        ),
    ] = "",
    only: Annotated[
        str,
        _part_option(
            "Only models that fulfill a condition over their factors, and what they start from, "
            'e.g. "lr < 0.01 and seed = 1".',
            metavar="SQL",
        ),
    ] = "",
    workers: options.Workers = None,
    device: Annotated[str | None, option(_DEVICE, show_default=False)] = None,
    data_dir: options.DataDir = None,
    loader_workers: Annotated[
        int | None,
        option(
            "Processes per model that decode images, unless they are cached decoded. "
            "Default: the cores that are free.",
            min=0,
        ),
    ] = None,
    precision: Annotated[
        Literal["auto", "fp32", "tf32", "bf16"] | None,
        _speed_option(f"{options.PRECISION}{_OTHERWISE}auto."),
    ] = None,
    threads: Annotated[
        int | None,
        _speed_option(
            f"Threads of each worker.{_OTHERWISE}the cores divided among the workers.", min=1
        ),
    ] = None,
    compiled: Annotated[
        bool | None,
        _speed_option(
            "--compiled/--no-compiled",
            f"Use torch.compile.{_OTHERWISE}if the plan is long enough to repay it.",
        ),
    ] = None,
    stacked: Annotated[
        int | None,
        _speed_option(
            "Train up to this many similar models as one computation; 1: no stacks."
            f"{_OTHERWISE}measured.",
            min=1,
        ),
    ] = None,
    trace: Annotated[
        bool,
        _speed_option(
            "--trace",
            "Write a timeline of all workers to the zoo's timeline.json, for chrome://tracing.",
        ),
    ] = False,
    max_minutes: Annotated[
        float | None,
        option(
            "End after so long, as by Ctrl-C: what is finished is kept, and the same command goes "
            "on. Default: when all is done."
        ),
    ] = None,
    log: options.Log = None,
    log_set: options.LogSettings = None,
    wait: options.Wait = False,
    deterministic: Annotated[
        bool | None,
        option(
            "--deterministic/--no-deterministic",
            f"Deterministic, or faster on GPUs.{_OTHERWISE}deterministic.",
        ),
    ] = None,
    engine: Annotated[
        Literal["local", "ray"],
        _ray_option("local: processes on this machine; ray: a cluster, with the same bits."),
    ] = "local",
    address: Annotated[
        str | None,
        _ray_option(
            "auto: the cluster that this machine is part of; or HOST:PORT of its head. "
            "Default: a temporary one on this machine."
        ),
    ] = None,
    cpus_per_model: Annotated[
        int | None, _ray_option("Also the threads of each worker. Default: 1.", min=1)
    ] = None,
    gpus_per_model: Annotated[
        float | None,
        _ray_option("0.25 lets four models share a GPU. Default: 1, on CPUs 0.", min=0, max=1),
    ] = None,
    dry_run: options.DryRun = False,
    calibrate: Annotated[
        bool,
        option(
            "--calibrate/--no-calibrate",
            "With --dry-run: measure the training speeds that are not known yet, for the time. "
            "Takes minutes for a new kind of model, once.",
        ),
    ] = False,
    json: options.DryRunJson = False,
    csv: options.DryRunCsv = False,
) -> None:
    """Train every model of a blueprint that the zoo does not have yet.

    If it is interrupted, run the same command to resume after each model's last finished epoch.
    With --dry-run, it says what all this would cost: models, parameters, steps, bytes; and the
    time, where training speeds were measured on this machine before (by growing, or --calibrate).

    Examples:

      vitarium grow fashion --zoo fashion-zoo

      vitarium grow vit-s-imagenet-cifar100 --dry-run

      vitarium grow mine.yaml --stages pretrain --only "seed = 1"

      vitarium grow mine.yaml --log tensorboard --log csv

      vitarium grow mine.yaml --engine ray --address auto --gpus-per-model 0.5
    """
    if calibrate and not dry_run:
        raise InvalidInput("--calibrate is for --dry-run; growing measures what it needs by itself")
    if not dry_run and engine == "local":
        start_worker_server(device, workers, threads)
    loaded, folder, check = read_blueprint(blueprint, zoo, data_dir)
    part: dict[str, Any] = {"stages": stages.split(",") if stages else None, "only": only}
    numerics: dict[str, Any] = {
        "workers": workers,
        "threads": threads,
        "device": device,
        "deterministic": deterministic,
        "precision": precision,
        "compiled": compiled,
        "stacked": stacked,
    }
    loggers = loggers_of(log, log_set)
    if dry_run:
        from vitarium.blueprint import plan
        from vitarium.engine.parents import parents_in
        from vitarium.engine.part import part_of

        planned = part_of(plan(loaded, parents_in(folder), check), **part)
        chosen = planned.numerics.updated(**numerics)
        estimated = estimate_of(planned, chosen, check.adaptations, calibrate=calibrate)
        print_estimate(estimated, as_json=json, as_csv=csv)
        return
    _grow(
        loaded,
        folder,
        **part,
        **numerics,
        data_dir=data_dir,
        loader_workers=loader_workers,
        wait=wait,
        max_minutes=max_minutes,
        trace=trace,
        logs=loggers,
        engine=engine,
        address=address,
        cpus_per_model=cpus_per_model,
        gpus_per_model=gpus_per_model,
    )


def loggers_of(names: list[str] | None, pairs: list[str] | None) -> list[dict[str, Any]]:
    """Loggers by name with their settings, as `grow` takes them.

    Raises InvalidInput for a setting of one that was not chosen.
    """
    loggers = {name: {"name": name} for name in names or ()}
    for path, value in options.parsed(pairs, "--log-set", "wandb.project=vits").items():
        name, _, setting = path.partition(".")
        if name not in loggers or not setting:
            raise InvalidInput(
                f"--log-set {path}: write LOGGER.NAME=VALUE, of a logger that is named by --log"
            )
        loggers[name][setting] = value
    return list(loggers.values())


def _grow(blueprint: "Blueprint", zoo: Path, **settings: Any) -> None:
    from vitarium.engine.grow import grow as grow_zoo
    from vitarium.zoo.listing import listing

    with resumable(f"Finished epochs are kept in {zoo}"):
        growth = grow_zoo(blueprint, zoo, **settings)
    listed = {row["model"]: row for row in listing(zoo).rows}
    rows = [listed[model.id] for model in growth.plan.models if model.id in listed]
    print_models(rows, title=titled(str(zoo), rows, ": "))
    print_note(
        f"{counted(len(growth.grown), 'model')} grown, {len(growth.existing)} already there, "
        f"{len(growth.diverged)} diverged, {len(growth.failed)} failed, "
        f"{len(growth.skipped)} skipped."
    )
    if growth.time_is_up:
        print_note(f"Time is up. Finished epochs are kept in {zoo}; {RESUME}.", style="yellow")
    if not growth.complete:
        for id, cause in {**growth.failed, **growth.skipped}.items():
            print_note(f"{id}: {cause}", style="red")
        raise typer.Exit(1)
