"""Give models of a zoo compact students: converted by an operator, and taught by the original."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitarium.blueprint import Imported, ModelSpec, Plan, Recipe, check_stage_name
from vitarium.blueprint.normalization import OWN_DATA
from vitarium.blueprint.overrides import apply
from vitarium.blueprint.parents import inherited, with_parents_normalization
from vitarium.blueprint.stage import Start
from vitarium.compression.comparison import compare
from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.errors import IncompatibleWeights, InvalidInput
from vitarium.core.parameters import parameter
from vitarium.core.progress import SILENT, Progress
from vitarium.core.registry import Section, choose, section
from vitarium.data.preprocessing import Assumed, read_normalization
from vitarium.engine.grow import grow
from vitarium.engine.growth import Growth
from vitarium.objectives.distillation.base import PARENT
from vitarium.operators._runner.merge import merge
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
_MISSING = {
    "data": ("what its student learns from", "NAME"),
    "epochs": ("how long its student learns", "N"),
    "normalization": ("how its images were normalized, as the data set's or by mean/std", "data"),
}


@dataclass(frozen=True)
class Compression:
    """What became of the models that were to be compressed.

    students: id of each student by `ID@EPOCH` of its original, finished or not.
    growth: of their training; None: an operator made them, and nothing was trained.
    data, normalization: of models that were trained elsewhere, as `compress` was given them.
    """

    zoo: Zoo
    students: Mapping[str, str]
    growth: Growth | None = field(repr=False)
    device: str
    data_dir: Path | None = None
    data: str | Mapping[str, Any] | None = None
    normalization: Assumed | None = None

    @cached_property
    def comparison(self) -> "pd.DataFrame":
        """Every student that is finished beside its original; see `compare`."""
        status = {old: self.zoo.folder(new).status for old, new in self.students.items()}
        done = {old: new for old, new in self.students.items() if status[old] == "finished"}
        images: dict[str, Any] = {"data": self.data, "normalization": self.normalization}
        return compare(self.zoo, done, device=self.device, data_dir=self.data_dir, **images)


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
    operator_progress: Progress = SILENT,
    grow_options: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Compression:
    """Give every model a compact student: what an operator makes of it, trained or not.

        vitarium.compress(zoo, models=["3f2a"], share=2)
        vitarium.compress(zoo, "minivit", models=ids, share="all", init="mean", epochs=20)
        vitarium.compress(zoo, models=ids, recipe={"objective.hidden_weight": 0})
        vitarium.compress(zoo, "matvit_member", models=["3f2a"], granularity=0.25)

    A student is a model of the zoo with the original as its parent or ingredient. Where it is
    trained it is taught by the original. The same call goes on where an earlier one was stopped,
    and finds what is there.

    Args:
        method: an operator that makes a smaller model of one.
        models: ids or beginnings of them; `ID@3` is the model after epoch 3, `ID` after its last.
        where: of these, or of all, only models that fulfill this condition.
        epochs: of the training; 0: the student is used as the operator made it. None: 0 for
            post-training methods, for others as many as the original was trained for.
        data: a data set to learn from, and to calibrate on; None: the original's.
        normalization: of the images of originals of which it is not known, as of
            `vitarium.measure`; a student has that of its original.
        recipe: other factors of the training by dotted path; see `DEFAULTS`.
        stage: of the students, in the zoo's tables.
        device, data_dir, workers, progress, grow_options: as of `vitarium.grow`.
        operator_progress: is told how far operators are that look at images.
        settings: of the method.

    What a method makes of a model by looking at images is a model of the zoo, too, from which
    training starts. Raises UnknownName, InvalidConfig, InvalidInput, IncompatibleWeights,
    CorruptFile, ZooInUse.
    """
    check_stage_name(stage)
    zoo = Zoo.open(zoo)
    if isinstance(method, str):
        method = choose("operator", method, **settings)
    facts = method.plugin.facts
    if epochs is None and facts["compression"] == "post_training":
        epochs = 0
    if epochs == 0 and recipe:
        how = parameter("epochs", "N")
        raise InvalidInput(
            f"{', '.join(recipe)}: nothing is trained; give epochs of training, {how}"
        )
    refs = list(dict.fromkeys(map(zoo.at, select(zoo, models, where, "compress"))))
    for ref in refs:
        if zoo.folder(ref.model).status == "diverged":
            raise InvalidInput(f"model {ref} diverged; leave it out")
    images: dict[str, Any] = {"data": data, "normalization": normalization}
    where_to: dict[str, Any] = {"device": device, "data_dir": data_dir}

    def converted() -> dict[str, str]:
        options = {**images, **where_to, "progress": operator_progress, "stage": stage}
        return {str(ref): merge(zoo, method, models=[str(ref)], **options).id for ref in refs}

    if epochs == 0:
        return Compression(zoo, converted(), None, device, data_dir, **images)
    asked_for = {"epochs": epochs, "data": data}
    overrides = {name: value for name, value in asked_for.items() if value is not None}
    overrides |= recipe or {}
    assumed = None if normalization is None else _factor(normalization)
    starts = converted() if facts["split"] else {}
    specs = {
        str(ref): _student_spec(zoo, ref, method, overrides, stage, assumed, starts.get(str(ref)))
        for ref in refs
    }
    plan = Plan(stage, tuple({spec.id: spec for spec in specs.values()}.values()))
    running = {**where_to, "workers": workers, "progress": progress}
    growth = grow(plan, zoo.path, **running, **(grow_options or {}))
    students = {model: spec.id for model, spec in specs.items()}
    return Compression(zoo, students, growth, device, data_dir, **images)


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
    start_model: str | None,
) -> ModelSpec:
    """Of the student of a model, which starts from `start_model` where images were needed for that.

    Raises InvalidInput for a model that has not learned classes, or of which nobody knows how its
    images were normalized.
    """
    origin = zoo.spec(ref.model).origin
    conversion = None if start_model else method
    begin = CheckpointRef(start_model, 0) if start_model else ref
    start = Start.read(
        {"models": [begin.model], "epoch": begin.epoch, "operator": conversion, "keep_head": True}
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
    if start_model:
        settings = _taught_by(settings, ref)
    try:
        recipe = Recipe.read(inherited(settings, zoo.spec(begin.model).origin, start))
    except IncompatibleWeights as error:  # one of a selection
        raise IncompatibleWeights(f"model {ref}: {error}") from None
    origins: dict[str, Any] = {"parent": begin.model, "parent_epoch": begin.epoch}
    return ModelSpec(stage=stage, recipe=recipe, conversion=conversion, keep_head=True, **origins)


def _taught_by(settings: Mapping[str, Any], teacher: CheckpointRef) -> dict[str, Any]:
    """Settings in which a teacher that would be the parent is that model."""
    chosen = section("objective", settings["objective"])
    if getattr(chosen.config, "teacher", None) != PARENT:
        return dict(settings)
    return {**settings, "objective": {**chosen.factors(defaults=False), "teacher": str(teacher)}}
