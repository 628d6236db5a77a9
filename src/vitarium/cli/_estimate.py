"""`vitarium grow --dry-run`: what a plan costs, as tables."""

from dataclasses import asdict
from typing import TYPE_CHECKING

from vitarium.cli._tables import duration, print_json, print_rows, size
from vitarium.core.terminal import Terminal

if TYPE_CHECKING:
    from vitarium.blueprint import Plan
    from vitarium.engine.tuning.auto_tuner import TrainRequest


def print_estimate(
    planned: "Plan",
    *,
    workers: int | None,
    device: str,
    request: "TrainRequest | None",
    json: bool,
) -> None:
    """Print what growing a plan costs; with a request, the speeds are measured."""
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
    workers_text = f"{machine.workers} workers on {', '.join(machine.devices)}"
    if request:
        console.print(
            f"Time: forward, backward and optimizer on random images, with {workers_text}; "
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
