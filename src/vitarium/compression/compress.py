"""Give models of a zoo compact students: converted by an operator, then taught by the original."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitarium.blueprint import ModelSpec, Plan, Recipe, check_stage_name
from vitarium.blueprint.blueprint import Start
from vitarium.blueprint.overrides import apply
from vitarium.blueprint.plan import inherited
from vitarium.compression.compare import compare
from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.errors import IncompatibleWeights, InvalidInput
from vitarium.core.registry import Section, choose
from vitarium.engine.grow import Growth, grow
from vitarium.zoo import Zoo

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
_MISSING = {"data": "what its student learns from", "epochs": "how long its student learns"}


@dataclass(frozen=True)
class Compression:
    """What became of the models that were to be compressed.

    students: id of each student by `ID@EPOCH` of its original, finished or not.
    """

    zoo: Zoo
    students: Mapping[str, str]
    growth: Growth
    device: str
    data_dir: Path | None = None

    @cached_property
    def comparison(self) -> "pd.DataFrame":
        """Every student that is finished beside its original; see `compare`."""
        status = {old: self.zoo.folder(new).status for old, new in self.students.items()}
        done = {old: new for old, new in self.students.items() if status[old] == "finished"}
        return compare(self.zoo, done, device=self.device, data_dir=self.data_dir)


def compress(
    zoo: Zoo,
    method: str | Section = "minivit",
    *,
    models: Iterable[str],
    epochs: int | None = None,
    data: str | Mapping[str, Any] | None = None,
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
        vitarium.compress(zoo, "minivit", models=ids, share="all", init="fit", epochs=20)
        vitarium.compress(zoo, models=ids, recipe={"objective.hidden_weight": 0})

    A student is a model of the zoo with the original as its parent. The same call goes on where an
    earlier one was stopped, and finds what is there.

    Args:
        method: an operator that makes a smaller model of one.
        models: ids or beginnings of them; `ID@3` is the model after epoch 3, `ID` after its last.
        epochs: of the training; None: as many as the original was trained for.
        data: a data set to learn from; None: the original's.
        recipe: other factors of the training by dotted path; see `DEFAULTS`.
        stage: of the students, in the zoo's tables.
        device, data_dir, workers, progress, grow_options: as of `vitarium.grow`.
        settings: of the method.

    Raises UnknownName, InvalidConfig, InvalidInput, IncompatibleWeights, CorruptFile, ZooInUse.
    """
    check_stage_name(stage)
    if isinstance(method, str):
        method = choose("operator", method.replace("-", "_"), **settings)
    asked_for = {"epochs": epochs, "data": data}
    overrides = {name: value for name, value in asked_for.items() if value is not None}
    refs = list(dict.fromkeys(map(zoo.at, models)))
    if not refs:
        raise InvalidInput("say which models to compress")
    for ref in refs:
        if zoo.folder(ref.model).status == "diverged":
            raise InvalidInput(f"model {ref} diverged; leave it out")
    specs = {
        str(ref): _student_spec(zoo, ref, method, {**overrides, **(recipe or {})}, stage)
        for ref in refs
    }
    plan = Plan(stage, tuple({spec.id: spec for spec in specs.values()}.values()))
    running: dict[str, Any] = {
        "device": device,
        "data_dir": data_dir,
        "workers": workers,
        "progress": progress,
    }
    growth = grow(plan, zoo.path, **running, **(grow_options or {}))
    students = {model: spec.id for model, spec in specs.items()}
    return Compression(zoo, students, growth, device, data_dir)


def _student_spec(
    zoo: Zoo, ref: CheckpointRef, method: Section, overrides: Mapping[str, Any], stage: str
) -> ModelSpec:
    """Raises InvalidInput for a model that has not learned classes."""
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
    for factor, what in _MISSING.items():
        if factor not in settings:
            raise InvalidInput(f"model {ref} was trained elsewhere: say with --{factor} {what}")
    try:
        recipe = Recipe.read(inherited(settings, origin, start))
    except IncompatibleWeights as error:  # one of a selection
        raise IncompatibleWeights(f"model {ref}: {error}") from None
    return ModelSpec(
        stage=stage,
        parent=ref.model,
        parent_epoch=ref.epoch,
        recipe=recipe,
        conversion=method,
        keep_head=True,
    )
