"""`vitarium demo` and `vitarium grow`."""

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitarium.cli._options import UNCHECKED, DataDir, Device
from vitarium.cli._tables import duration, print_json, print_rows, size
from vitarium.cli.zoo import SCORED, overview
from vitarium.core.filenames import file_name
from vitarium.core.terminal import Terminal

if TYPE_CHECKING:
    from vitarium.blueprint import Blueprint, Plan
    from vitarium.engine.tuning.auto_tuner import TrainRequest

Workers = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Models trained at a time, each in its own process; 0: in this one. "
        "Default: one per core, or one per GPU; on a cluster as many as it holds.",
    ),
]


class EngineName(StrEnum):
    """Where the workers run."""

    local = "local"
    ray = "ray"


class PrecisionName(StrEnum):
    """What is computed in."""

    auto = "auto"
    fp32 = "fp32"
    tf32 = "tf32"
    bf16 = "bf16"


_RAY = "On a Ray cluster"
_SPEED = "Speed"


def demo(
    zoo: Annotated[Path, typer.Option(help="The zoo's folder.", readable=UNCHECKED)] = Path(
        "demo-zoo"
    ),
    workers: Workers = None,
    device: Device = "auto",
) -> None:
    """Grow the demo zoo on handwritten digits: minutes on two CPU cores, no download.

    Small ViTs are pre-trained on MNIST digits, supervised and contrastive, and fine-tuned on
    another laboratory's digits; a control starts from scratch.

    Example:  vitarium demo
    """
    from vitarium.blueprint import Blueprint

    console = Terminal(stderr=True)
    console.print("Growing the demo zoo in", str(zoo), style="bold")
    _grow(Blueprint.load("demo"), zoo, workers=workers, device=device)
    console.print(
        f"\nThe zoo lies in {zoo}. Look around:\n"
        f"  vitarium ls {zoo}\n"
        f"  vitarium show {zoo} MODEL\n"
        f"  python -c \"import vitarium; print(vitarium.Zoo.open('{zoo}').models())\"",
        soft_wrap=True,
    )


def grow(
    blueprint: Annotated[
        str, typer.Argument(help="A YAML file, or a name of `vitarium blueprint list`.")
    ],
    zoo: Annotated[
        Path | None,
        typer.Option(
            help="The zoo's folder. Default: NAME-zoo.", show_default=False, readable=UNCHECKED
        ),
    ] = None,
    workers: Workers = None,
    device: Device = "auto",
    data_dir: DataDir = None,
    loader_workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Processes per model that decode images, where they are not decoded beforehand. "
            "Default: the cores that are free.",
            show_default=False,
        ),
    ] = None,
    precision: Annotated[
        PrecisionName,
        typer.Option(
            help="auto measures once what is fastest here, and says so; bf16 is autocast.",
            rich_help_panel=_SPEED,
        ),
    ] = PrecisionName.auto,
    compiled: Annotated[
        bool | None,
        typer.Option(
            "--compile/--no-compile",
            help="torch.compile. Default: where the plan is long enough to repay it.",
            rich_help_panel=_SPEED,
            show_default=False,
        ),
    ] = None,
    stack: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Train up to so many like models as one computation; 1: none. "
            "Default: as many as pays here.",
            rich_help_panel=_SPEED,
            show_default=False,
        ),
    ] = None,
    trace: Annotated[
        bool,
        typer.Option(
            "--trace",
            help="Write what each worker did when to the zoo's timeline.json, "
            "for chrome://tracing.",
            rich_help_panel=_SPEED,
        ),
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait while another process grows this zoo.")
    ] = False,
    deterministic: Annotated[
        bool,
        typer.Option(help="The same bits from the same seeds; the other may be faster on GPUs."),
    ] = True,
    engine: Annotated[
        EngineName,
        typer.Option(
            help="local: processes on this machine; ray: a cluster, with the same bits.",
            rich_help_panel=_RAY,
        ),
    ] = EngineName.local,
    address: Annotated[
        str | None,
        typer.Option(
            help="auto: the cluster that this machine is part of; or HOST:PORT of its head. "
            "Default: one that is started on this machine for the occasion.",
            rich_help_panel=_RAY,
            show_default=False,
        ),
    ] = None,
    cpus_per_model: Annotated[
        int | None,
        typer.Option(
            min=1, help="Also the threads of each worker. Default: 1.", rich_help_panel=_RAY
        ),
    ] = None,
    gpus_per_model: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="0.25 lets four models share a GPU. Default: 1, on CPUs 0.",
            rich_help_panel=_RAY,
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what would be grown and what it costs; write nothing."),
    ] = False,
    calibrate: Annotated[
        bool, typer.Option(help="With --dry-run: train for a moment to estimate the time.")
    ] = True,
    json: Annotated[bool, typer.Option("--json", help="With --dry-run: as JSON.")] = False,
) -> None:
    """Train every model of a blueprint that the zoo does not have yet.

    Stopped at any moment and started again, it goes on after each model's last finished epoch.

    Examples:

      vitarium grow fashion --zoo fashion-zoo

      vitarium grow vit-s-imagenet-cifar100 --dry-run

      vitarium grow mine.yaml --engine ray --address auto --gpus-per-model 0.5
    """
    from vitarium.blueprint import Blueprint, plan

    loaded = Blueprint.load(blueprint)
    place = zoo or Path(file_name(f"{loaded.name}-zoo"))
    if dry_run:
        from vitarium.engine.parents import parents_in
        from vitarium.engine.tuning.auto_tuner import TrainRequest

        # to try a compilation takes a minute, so not unless it is asked for
        request = (
            TrainRequest(precision.value, bool(compiled), stack or "auto") if calibrate else None
        )
        planned = plan(loaded, parents_in(place))
        _dry_run(planned, workers=workers, device=device, request=request, json=json)
        return
    _grow(
        loaded,
        place,
        workers=workers,
        device=device,
        data_dir=data_dir,
        loader_workers=loader_workers,
        deterministic=deterministic,
        precision=precision.value,
        compiled="auto" if compiled is None else compiled,
        stacked=stack or "auto",
        wait=wait,
        trace=trace,
        engine=engine.value,
        address=address,
        cpus_per_model=cpus_per_model,
        gpus_per_model=gpus_per_model,
    )


def _grow(blueprint: "Blueprint", zoo: Path, **options: Any) -> None:
    from vitarium.engine.grow import grow as grow_zoo

    console = Terminal(stderr=True)
    try:
        growth = grow_zoo(blueprint, zoo, **options)
    except KeyboardInterrupt:
        console.print(
            f"\nStopped. Finished epochs are kept in {zoo}; the same command goes on after them.",
            style="yellow",
        )
        raise typer.Exit(130) from None
    print_rows(overview(growth.zoo, growth.plan), title=f"{zoo}: {SCORED}")
    console.print(
        f"{len(growth.grown)} models grown, {len(growth.existing)} were there already, "
        f"{len(growth.diverged)} diverged, {len(growth.failed)} failed, "
        f"{len(growth.skipped)} skipped.",
    )
    if not growth.complete:
        for id, cause in {**growth.failed, **growth.skipped}.items():
            console.print(f"{id}: {cause}", style="red", soft_wrap=True)
        raise typer.Exit(1)


def _dry_run(
    planned: "Plan",
    *,
    workers: int | None,
    device: str,
    request: "TrainRequest | None",
    json: bool,
) -> None:
    from vitarium.engine.progress.display import announce
    from vitarium.engine.tuning.auto_tuner import AutoTuner
    from vitarium.engine.tuning.calibration import Calibration
    from vitarium.engine.tuning.estimate import estimate
    from vitarium.engine.tuning.machine import Machine

    machine = Machine.find(device, workers)
    tuner = None
    if request:
        measure = Calibration(machine.devices[0], machine.threads, announce)
        tuner = AutoTuner(planned, machine, request, measure, announce)
    stages = estimate(planned, machine, tuner)
    if json:
        print_json({"models": len(planned), "stages": [asdict(stage) for stage in stages]})
        return
    print_rows(
        (
            {
                "stage": stage.stage,
                "starts from": stage.start,
                "models": stage.models,
                "parameters": _range(stage.parameters),
                "epochs": stage.epochs,
                "steps": "?" if stage.steps is None else f"{stage.steps:,}",
                "checkpoints": "?" if stage.bytes is None else f"up to {size(stage.bytes)}",
                "time": "?" if stage.seconds is None else duration(stage.seconds),
            }
            for stage in stages
        ),
        title=f"{planned.name}: {_sum_of_models(planned)}",
    )
    for stage in stages:
        print_rows(
            ({"factor": name, "values": values} for name, values in stage.factors.items()),
            title=f"Factors of {stage.stage}",
        )
    console = Terminal()
    workers_said = f"{machine.workers} workers on {', '.join(machine.devices)}"
    if request:
        console.print(
            f"Time: forward, backward and optimizer on random images, with {workers_said}; "
            "reading, augmenting and scoring come on top."
        )
    if any(stage.steps is None for stage in stages):
        console.print("?: needs data that is not on this machine.")


def _sum_of_models(planned: "Plan") -> str:
    parts = " + ".join(str(count) for count in planned.stages.values())
    return f"{len(planned)} models" + (f" ({parts})" if len(planned.stages) > 1 else "")


def _range(parameters: tuple[int, int] | None) -> str:
    if parameters is None:
        return "?"
    low, high = parameters
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
