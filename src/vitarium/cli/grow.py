"""`vitarium demo` and `vitarium grow`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from vitarium.blueprint import Blueprint, Plan, plan
from vitarium.cli.tables import duration, print_json, print_rows, size
from vitarium.cli.zoo import SCORED, overview

Device = Annotated[
    str, typer.Option(help="auto (a GPU where there is one), cpu, cuda, or one GPU: cuda:1.")
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Models trained at a time, each in its own process; 0: in this one. "
        "Default: one per core, or one per GPU.",
    ),
]


def demo(
    zoo: Annotated[Path, typer.Option(help="The zoo's folder.")] = Path("demo-zoo"),
    workers: Workers = None,
    device: Device = "auto",
) -> None:
    """Grow the demo zoo on handwritten digits: minutes on two CPU cores, no download.

    Small ViTs are pre-trained on MNIST digits, supervised and contrastive, and fine-tuned on
    another laboratory's digits; a control starts from scratch.

    Example:  vitarium demo
    """
    console = Console(stderr=True)
    console.print("Growing the demo zoo in", str(zoo), style="bold")
    _grow(Blueprint.load("demo"), zoo, workers=workers, device=device)
    console.print(
        f"\nThe zoo lies in {zoo}. Look around:\n"
        f"  vitarium ls {zoo}\n"
        f"  vitarium show {zoo} MODEL\n"
        f"  python -c \"import vitarium; print(vitarium.Zoo.open('{zoo}').models())\"",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def grow(
    blueprint: Annotated[
        str, typer.Argument(help="A YAML file, or a name of `vitarium blueprint list`.")
    ],
    zoo: Annotated[
        Path | None, typer.Option(help="The zoo's folder. Default: NAME-zoo.", show_default=False)
    ] = None,
    workers: Workers = None,
    device: Device = "auto",
    data_dir: Annotated[
        Path | None, typer.Option(help="Looked into first for data sets.", show_default=False)
    ] = None,
    loader_workers: Annotated[
        int, typer.Option(min=0, help="Processes per model that decode and augment images.")
    ] = 0,
    deterministic: Annotated[
        bool,
        typer.Option(help="The same bits from the same seeds; the other may be faster on GPUs."),
    ] = True,
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
    """
    loaded = Blueprint.load(blueprint)
    if dry_run:
        _dry_run(plan(loaded), workers=workers, device=device, calibrate=calibrate, json=json)
        return
    place = zoo or Path(f"{loaded.name}-zoo")
    _grow(
        loaded,
        place,
        workers=workers,
        device=device,
        data_dir=data_dir,
        loader_workers=loader_workers,
        deterministic=deterministic,
    )


def _grow(blueprint: Blueprint, zoo: Path, **options: Any) -> None:
    from vitarium import engine

    console = Console(stderr=True)
    try:
        growth = engine.grow(blueprint, zoo, **options)
    except KeyboardInterrupt:
        console.print(
            f"\nStopped. Finished epochs are kept in {zoo}; the same command goes on after them.",
            style="yellow",
        )
        raise typer.Exit(130) from None
    print_rows(overview(growth.zoo, growth.plan), title=f"{zoo}: {SCORED}")
    console.print(
        f"{len(growth.grown)} models grown, {len(growth.already)} were there already, "
        f"{len(growth.diverged)} diverged, {len(growth.failed)} failed, "
        f"{len(growth.skipped)} skipped.",
        highlight=False,
    )
    if not growth.complete:
        for id, cause in {**growth.failed, **growth.skipped}.items():
            console.print(f"{id}: {cause}", style="red", markup=False, highlight=False)
        raise typer.Exit(1)


def _dry_run(
    planned: Plan, *, workers: int | None, device: str, calibrate: bool, json: bool
) -> None:
    from vitarium.engine.estimate import estimate
    from vitarium.engine.machine import Machine

    machine = Machine.find(device, workers)
    stages = estimate(planned, machine, calibrate=calibrate)
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
                "checkpoints": "?" if stage.bytes is None else size(stage.bytes),
                "time": "?" if stage.seconds is None else duration(stage.seconds),
            }
            for stage in stages
        ),
        title=f"{planned.blueprint.name}: {_sum_of_models(planned)}",
    )
    for stage in stages:
        print_rows(
            ({"factor": name, "values": values} for name, values in stage.factors.items()),
            title=f"Factors of {stage.stage}",
        )
    console = Console()
    workers_said = f"{machine.workers} workers on {', '.join(machine.devices)}"
    if calibrate:
        console.print(
            f"Time: forward, backward and optimizer on random images, with {workers_said}; "
            "reading, augmenting and scoring come on top."
        )
    if any(stage.steps is None for stage in stages):
        console.print("?: needs data that is not on this machine.")


def _sum_of_models(planned: Plan) -> str:
    parts = " + ".join(str(count) for count in planned.stages.values())
    return f"{len(planned)} models" + (f" ({parts})" if len(planned.stages) > 1 else "")


def _range(parameters: tuple[int, int] | None) -> str:
    if parameters is None:
        return "?"
    low, high = parameters
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
