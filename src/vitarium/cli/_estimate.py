"""What growing a plan would cost: `vitarium grow --dry-run`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from vitarium.cli._blueprint import print_normalizations
from vitarium.cli._tables import HAS_ALL, print_json, print_rows, print_text, text
from vitarium.core.numerals import counted, duration, size
from vitarium.core.terminal import Terminal, print_line

if TYPE_CHECKING:
    from vitarium.blueprint import Plan
    from vitarium.blueprint.numerics import Numerics
    from vitarium.engine.tuning.estimate import StageEstimate
    from vitarium.engine.tuning.machine import Machine


_UNKNOWN = "?"
_TRAINED = "of which learn"
_COMPANIONS = "companions"
_LISTED = 8  # values of a factor; of more numbers, their range is shown


@dataclass(frozen=True)
class PlanEstimate:
    """The costs of a plan's stages on a machine."""

    plan: "Plan"
    machine: "Machine"
    stages: "list[StageEstimate]"
    adaptations: Mapping[str, list[str]]
    """By stage, how the parents' weights are adapted."""
    unmeasured_kinds: int
    """Kinds of models whose training speed, and so their time, is not known."""


def estimate_of(
    planned: "Plan",
    numerics: "Numerics",
    adaptations: Mapping[str, list[str]],
    *,
    calibrate: bool,
) -> PlanEstimate:
    """Estimate a plan, by training speeds that are known; calibrate: the others are measured."""
    from vitarium.engine.progress.display import announce
    from vitarium.engine.tuning.auto_tuner import AutoTuner, TrainRequest
    from vitarium.engine.tuning.calibration import Calibration
    from vitarium.engine.tuning.estimate import estimate
    from vitarium.engine.tuning.machine import Machine

    machine = Machine.find(numerics.device, numerics.workers, numerics.threads)
    # to try a compilation takes a minute, so not unless it is asked for
    request = TrainRequest(numerics.precision, numerics.compiled is True, numerics.stacked)
    calibration = Calibration(machine.devices[0], machine.threads, announce)
    tuner = AutoTuner(planned, machine, request, calibration, announce)
    unmeasured = tuner.unmeasured_kinds(planned.models, tuner.per_image)
    if calibrate:
        calibration.num_kinds = unmeasured
        stages = estimate(planned, machine, tuner)
        return PlanEstimate(planned, machine, stages, adaptations, 0)
    with calibration.known_only():
        stages = estimate(planned, machine, tuner)
    return PlanEstimate(planned, machine, stages, adaptations, unmeasured)


def print_estimate(estimated: PlanEstimate, *, as_json: bool, as_csv: bool) -> None:
    """Print a table of stages, their factors, and notes; or the stages as JSON or CSV."""
    planned, stages = estimated.plan, estimated.stages
    if as_json or as_csv:
        notes = {"adapted": estimated.adaptations, "normalization": planned.normalizations}
        rows = [
            asdict(stage) | {name: texts.get(stage.stage, []) for name, texts in notes.items()}
            for stage in stages
        ]
        if as_csv:
            print_rows(rows, as_json=as_json, as_csv=as_csv)
            return
        unmeasured = estimated.unmeasured_kinds
        print_json({"models": len(planned), "unmeasured_kinds": unmeasured, "stages": rows})
        return
    counts = " + ".join(map(str, planned.stages.values()))
    total = counted(len(planned), "model") + (f" ({counts})" if len(planned.stages) > 1 else "")
    rows = _without_unknown([_row(stage) for stage in stages])
    shown = {
        _TRAINED: any(stage.trained != stage.parameters for stage in stages),
        _COMPANIONS: any(stage.companions and stage.companions[1] for stage in stages),
    }
    rows = [{name: row[name] for name in row if shown.get(name, True)} for row in rows]
    spare = ["steps", "starts from"]
    print_rows(rows, title=f"{planned.name}: {total}", spare=spare, complete=HAS_ALL)
    for stage in stages:
        if stage.factors:
            print_line()
        factors = ({"factor": name, "values": _brief(v)} for name, v in stage.factors.items())
        print_rows(factors, title=f"Factors of {stage.stage}")
    _print_notes(estimated)


def _brief(values: list[Any]) -> str:
    """As a blueprint has them; many numbers, as of a sample, by their range."""
    is_numeric = all(isinstance(value, int | float) for value in values)
    if len(values) <= _LISTED or not is_numeric:
        return ", ".join(map(_as_written, values))
    return f"{len(values)} from {min(values)} to {max(values)}"


def _as_written(value: Any) -> str:
    """A list in brackets, so that several do not run together."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_as_written, value))}]"
    return "none" if value is None else text(value)


def _without_unknown(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """Without columns of which nothing is known; notes below the table say why."""
    known = [name for name in rows[0] if any(row[name] != _UNKNOWN for row in rows)]
    return [{name: row[name] for name in known} for row in rows]


def _print_notes(estimated: PlanEstimate) -> None:
    """Say what is adapted, how images are normalized, and where the time comes from."""
    console = Terminal()
    for name, changes in estimated.adaptations.items():
        if changes:
            console.print(f"{name}: its parents' weights are adapted: {', '.join(changes)}.")
    print_normalizations(console, estimated.plan.normalizations)
    if any(stage.seconds is not None for stage in estimated.stages):
        machine = estimated.machine
        console.print(
            "Time: forward, backward and optimizer on random images, with "
            f"{machine.workers} workers on {', '.join(machine.devices)}; "
            "reading, augmenting and scoring come on top."
        )
    if any(stage.companions and stage.companions[1] for stage in estimated.stages):
        print_text(
            "Companions: parameters that objectives bring beside a model while it is trained, "
            "momentum teachers included; they are no part of it."
        )
    if kinds := estimated.unmeasured_kinds:
        print_text(
            f"Time: training speeds of {counted(kinds, 'kind')} of models were not measured on "
            "this machine yet; --dry-run --calibrate measures them and gives the time."
        )
    if unknown := [stage.stage for stage in estimated.stages if stage.steps is None]:
        print_text(
            f"Steps and sizes of {', '.join(unknown)} are not known: a dry run reads no data. Give "
            "num_classes and num_train in `data`, e.g. {name: image_folder, folder: photos, "
            "num_classes: 10, num_train: 5000}."
        )


def _row(stage: "StageEstimate") -> dict[str, object]:
    return {
        "stage": stage.stage,
        "starts from": stage.start,
        "models": stage.models,
        "parameters": _parameters(stage.parameters),
        _TRAINED: _parameters(stage.trained),
        _COMPANIONS: _parameters(stage.companions),
        "epochs": stage.epochs,
        "steps": _UNKNOWN if stage.steps is None else f"{stage.steps:,}",
        "checkpoints": _UNKNOWN if stage.bytes is None else f"≤ {size(stage.bytes)}",
        "time": _UNKNOWN if stage.seconds is None else duration(stage.seconds),
    }


def _parameters(counts: tuple[int, int] | None) -> str:
    if counts is None:
        return _UNKNOWN
    low, high = counts
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
