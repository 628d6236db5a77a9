"""Give models of a zoo compact students: converted by an operator, then taught by the original."""

import json
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from vitarium.blueprint import Imported, ModelSpec, Plan, Recipe, check_stage_name
from vitarium.blueprint.normalization import OWN_DATA
from vitarium.blueprint.overrides import apply
from vitarium.blueprint.parents import inherited, with_parents_normalization
from vitarium.blueprint.stage import Start
from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.devices import find_devices
from vitarium.core.errors import IncompatibleWeights, InvalidInput
from vitarium.core.parameters import parameter
from vitarium.core.registry import Section, choose
from vitarium.data.preprocessing import Assumed, read_normalization
from vitarium.engine.grow import grow
from vitarium.engine.growth import Growth
from vitarium.engine.tuning.gain import Gain
from vitarium.measures._runner.measure import measure
from vitarium.zoo import Zoo
from vitarium.zoo.listing import select
from vitarium.zoo.model import ModelNames

if TYPE_CHECKING:
    import pandas as pd

STAGE = "compressed"
DEFAULTS: Mapping[str, Any] = {
    "augmentation": "standard",
    "objective": "weight_distillation",
    "optimizer": {"name": "adamw", "lr": 1e-3, "weight_decay": 0.05},
    "schedule": {"name": "cosine", "warmup_epochs": 1},
    "clip_grad_norm": 1.0,
    "batch_size": 128,
    "checkpoints": "last",
}
"""How a student is trained, but for what comes from the original's recipe and what is asked for."""
_TAKEN = ("data", "augmentation", "batch_size", "epochs", "seed")
"""What a student takes from the original's recipe."""
_RUNS = 30  # of each model, by which its time is measured
_MISSING = {
    "data": ("what its student learns from", "NAME"),
    "epochs": ("how long its student learns", "N"),
    "normalization": ("how its images were normalized, as the data set's or by mean/std", "data"),
}


@dataclass(frozen=True)
class Compression:
    """What became of the models that were to be compressed.

    students: id of each student by `ID@EPOCH` of its original, finished or not.
    """

    zoo: Zoo
    students: Mapping[str, str]
    growth: Growth = field(repr=False)
    device: str
    data_dir: Path | None = None

    @cached_property
    def comparison(self) -> "pd.DataFrame":
        """Every student that is finished beside its original; see `compare`."""
        status = {old: self.zoo.folder(new).status for old, new in self.students.items()}
        done = {old: new for old, new in self.students.items() if status[old] == "finished"}
        return compare(self.zoo, done, device=self.device, data_dir=self.data_dir)


def compress(
    zoo: Zoo | str | Path,
    method: str | Section = "minivit",
    *,
    models: ModelNames | None = None,
    where: str = "",
    epochs: int | None = None,
    data: str | Mapping[str, Any] | None = None,
    normalization: Assumed | None = None,
    recipe: Mapping[str, Any] | None = None,
    stage: str = STAGE,
    device: str = "auto",
    data_dir: Path | None = None,
    workers: int | None = None,
    progress: bool = True,
    grow_options: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Compression:
    """Give every model a compact student, which starts from it and is taught by it.

        vitarium.compress(zoo, models=["3f2a"], share=2)
        vitarium.compress(zoo, "minivit", models=ids, share="all", init="mean", epochs=20)
        vitarium.compress(zoo, models=ids, recipe={"objective.hidden_weight": 0})

    A student is a model of the zoo with the original as its parent. The same call goes on where an
    earlier one was stopped, and finds what is there.

    Args:
        method: an operator that makes a smaller model of one.
        models: ids or beginnings of them; `ID@3` is the model after epoch 3, `ID` after its last.
        where: of these, or of all, only models that fulfill this condition.
        epochs: of the training; None: as many as the original was trained for.
        data: a data set to learn from; None: the original's.
        normalization: of the images of originals of which it is not known, as of
            `vitarium.measure`; a student has that of its original.
        recipe: other factors of the training by dotted path; see `DEFAULTS`.
        stage: of the students, in the zoo's tables.
        device, data_dir, workers, progress, grow_options: as of `vitarium.grow`.
        settings: of the method.

    Raises UnknownName, InvalidConfig, InvalidInput, IncompatibleWeights, CorruptFile, ZooInUse.
    """
    check_stage_name(stage)
    zoo = Zoo.open(zoo)
    if isinstance(method, str):
        method = choose("operator", method, **settings)
    asked_for = {"epochs": epochs, "data": data}
    overrides = {name: value for name, value in asked_for.items() if value is not None}
    overrides |= recipe or {}
    refs = list(dict.fromkeys(map(zoo.at, select(zoo, models, where, "compress"))))
    for ref in refs:
        if zoo.folder(ref.model).status == "diverged":
            raise InvalidInput(f"model {ref} diverged; leave it out")
    assumed = None if normalization is None else _factor(normalization)
    specs = {str(ref): _student_spec(zoo, ref, method, overrides, stage, assumed) for ref in refs}
    plan = Plan(stage, tuple({spec.id: spec for spec in specs.values()}.values()))
    running: dict[str, Any] = {"device": device, "data_dir": data_dir, "workers": workers}
    growth = grow(plan, zoo.path, progress=progress, **running, **(grow_options or {}))
    students = {model: spec.id for model, spec in specs.items()}
    return Compression(zoo, students, growth, device, data_dir)


def _factor(assumed: Assumed) -> dict[str, Any] | str:
    """As a recipe has it. Raises InvalidInput for what is no normalization."""
    values = read_normalization(assumed)
    return OWN_DATA if values is None else dict(zip(("mean", "std"), values, strict=True))


def _student_spec(
    zoo: Zoo,
    ref: CheckpointRef,
    method: Section,
    overrides: Mapping[str, Any],
    stage: str,
    normalization: dict[str, Any] | str | None,
) -> ModelSpec:
    """Raises InvalidInput for a model that has not learned classes, or of which nobody knows how
    its images were normalized."""
    origin = zoo.spec(ref.model).origin
    start = Start.read(
        {"models": [ref.model], "epoch": ref.epoch, "operator": method, "keep_head": True}
    )
    taken: dict[str, Any] = {}
    if isinstance(origin, Recipe):
        if not origin.objective.plugin.facts.get("needs_head", True):
            raise InvalidInput(
                f"model {ref} was trained by {origin.objective.name} and gives no classes that a "
                "student could be taught; compress what was fine-tuned from it"
            )
        factors = origin.factors(defaults=False)
        taken = {name: factors[name] for name in _TAKEN if name in factors}
    settings = apply({**DEFAULTS, **taken}, overrides)
    settings = with_parents_normalization(settings, origin)
    if isinstance(origin, Imported) and normalization is not None:
        settings.setdefault("normalization", normalization)
    for factor, (what, example) in _MISSING.items() if isinstance(origin, Imported) else ():
        if factor not in settings:
            how = parameter(factor, example)
            raise InvalidInput(f"model {ref} was trained elsewhere: say {what}, {how}")
    try:
        recipe = Recipe.read(inherited(settings, origin, start))
    except IncompatibleWeights as error:  # one of a selection
        raise IncompatibleWeights(f"model {ref}: {error}") from None
    origins: dict[str, Any] = {"parent": ref.model, "parent_epoch": ref.epoch}
    return ModelSpec(stage=stage, recipe=recipe, conversion=method, keep_head=True, **origins)


def compare(
    zoo: Zoo, students: Mapping[str, str], *, device: str = "auto", data_dir: Path | None = None
) -> "pd.DataFrame":
    """A row per student: what it and its original take, and how good they are.

    Columns: model and epoch (the original), student, then of both (`_before`, `_after`): parameters
    (a shared one counts once), bytes (of the weights in a safetensors file), bytes_in_zoo (packed,
    what they share with other checkpoints left out), accuracy (on the test images of the student's
    data), refused (why there is none, or "") and milliseconds (of one image on the device, the
    median of runs in turn). speedup: how many times faster the student is, the median over pairs of
    runs that followed each other, with its quartiles (`_low`, `_high`). `students` has their ids by
    `ID@EPOCH` of the originals.
    """
    import pandas as pd

    where = find_devices(device)[0]
    pairs = {student: [zoo.at(original), zoo.at(student)] for original, student in students.items()}
    scores = _accuracies(zoo, pairs, device, data_dir)
    rows = []
    for student, pair in pairs.items():
        architecture = zoo.spec(student).origin.architecture
        assert architecture  # a student was trained here
        before, after = (zoo.load(*ref) for ref in pair)
        times = _pair_times(before, after, architecture.config.input_size, where)
        medians = [1e3 * statistics.median(seconds) for seconds in zip(*times, strict=True)]
        speedup = Gain.of(slow / fast for slow, fast in times)
        row: dict[str, Any] = {**pair[0]._asdict(), "student": student}
        for when, ref, milliseconds in zip(("before", "after"), pair, medians, strict=True):
            checkpoint = zoo.checkpoint(*ref)
            accuracy, refused = scores[student, ref]
            about = {
                "parameters": sum(stored.count for stored in checkpoint.tensors.values()),
                "bytes": checkpoint.nbytes,
                "bytes_in_zoo": checkpoint.path.stat().st_size,
                "accuracy": accuracy,
                "refused": refused,
                "milliseconds": milliseconds,
            }
            row |= {f"{name}_{when}": value for name, value in about.items()}
        row |= {"speedup": speedup.median, "speedup_low": speedup.low, "speedup_high": speedup.high}
        rows.append(row)
    return pd.DataFrame(rows)


def _accuracies(
    zoo: Zoo, pairs: Mapping[str, list[CheckpointRef]], device: str, data_dir: Path | None
) -> dict[tuple[str, CheckpointRef], tuple[float, str]]:
    """Of every student and of its original on the student's data, or why there is none.

    An original of which no normalization is known was compressed with the student's. What is
    measured on the same data after the same epoch is measured in one run.
    """
    runs: dict[tuple[str, str, int], list[tuple[str, CheckpointRef]]] = {}
    for student, pair in pairs.items():
        origin = zoo.spec(student).origin
        assert isinstance(origin, Recipe)  # a student was trained here
        data = json.dumps(origin.data.factors(), sort_keys=True)
        chosen = origin.normalization.values if origin.normalization else OWN_DATA
        is_imported = isinstance(zoo.spec(pair[0].model).origin, Imported)
        assumed = json.dumps(chosen if is_imported else None)
        for ref in pair:
            runs.setdefault((data, assumed, ref.epoch), []).append((student, ref))
    scores = {}
    for (data, assumed, epoch), members in runs.items():
        models = list(dict.fromkeys(ref.model for _, ref in members))
        where: dict[str, Any] = {"data": json.loads(data), "device": device, "data_dir": data_dir}
        where["normalization"] = json.loads(assumed)
        table = measure(zoo, "accuracy", models=models, epochs=[epoch], **where)
        accuracies = table[table["part"] == ""].set_index("model")
        for student, ref in members:
            row = accuracies.loc[ref.model]
            scores[student, ref] = (float(row["value"]), row["refused"])
    return scores


@torch.inference_mode()
def _pair_times(
    before: nn.Module, after: nn.Module, size: tuple[int, int, int], device: str
) -> list[tuple[float, float]]:
    """Seconds that each model takes for one image, in pairs of runs that follow each other.

    Whatever else the machine does falls on both; every other pair begins with the other model.
    """
    image = torch.zeros(1, *size, device=device)
    models = [model.to(device).eval() for model in (before, after)]
    pairs: list[tuple[float, float]] = []
    for run in range(_RUNS + 2):
        seconds = [0.0, 0.0]
        for number in (0, 1) if run % 2 else (1, 0):
            started = time.perf_counter()
            models[number](image)
            if device != "cpu":
                torch.cuda.synchronize(device)
            seconds[number] = time.perf_counter() - started
        if run > 1:  # the first ones warm up
            pairs.append((seconds[0], seconds[1]))
    return pairs
