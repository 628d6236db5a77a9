"""`vitarium grow --dry-run`: what a plan costs, as tables."""

from dataclasses import asdict
from typing import TYPE_CHECKING

from vitarium.cli._tables import print_json, print_rows
from vitarium.core.numerals import duration, size
from vitarium.core.terminal import Terminal

if TYPE_CHECKING:
    from vitarium.blueprint import Plan
    from vitarium.engine.tuning.auto_tuner import TrainRequest
    from vitarium.engine.tuning.estimate import StageEstimate


def print_estimate(
    planned: "Plan",
    workers: int | None,
    device: str,
    request: "TrainRequest | None",
    *,
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
    counts = " + ".join(map(str, planned.stages.values()))
    total = f"{len(planned)} models" + (f" ({counts})" if len(planned.stages) > 1 else "")
    print_rows(map(_row, stages), title=f"{planned.name}: {total}")
    for stage in stages:
        factors = ({"factor": name, "values": values} for name, values in stage.factors.items())
        print_rows(factors, title=f"Factors of {stage.stage}")
    console = Terminal()
    if request:
        console.print(
            "Time: forward, backward and optimizer on random images, with "
            f"{machine.workers} workers on {', '.join(machine.devices)}; "
            "reading, augmenting and scoring come on top."
        )
    if any(stage.steps is None for stage in stages):
        console.print("?: needs data that is not on this machine.")


def _row(stage: "StageEstimate") -> dict[str, object]:
    low, high = stage.parameters or (None, None)
    return {
        "stage": stage.stage,
        "starts from": stage.start,
        "models": stage.models,
        "parameters": "?" if low is None else f"{low:,}" if low == high else f"{low:,} to {high:,}",
        "epochs": stage.epochs,
        "steps": "?" if stage.steps is None else f"{stage.steps:,}",
        "checkpoints": "?" if stage.bytes is None else f"up to {size(stage.bytes)}",
        "time": "?" if stage.seconds is None else duration(stage.seconds),
    }
