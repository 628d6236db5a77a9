"""Students: what a method makes of models, and how that is trained."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vitarium.blueprint import Imported, ModelSpec, Plan, Recipe
from vitarium.blueprint.normalization import OWN_DATA
from vitarium.blueprint.overrides import apply
from vitarium.blueprint.parents import inherited, with_parents_normalization
from vitarium.blueprint.stage import Start
from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.errors import IncompatibleWeights, InvalidInput
from vitarium.core.parameters import parameter
from vitarium.core.registry import Section, section
from vitarium.data.preprocessing import Assumed, read_normalization
from vitarium.engine.grow import grow
from vitarium.engine.growth import Growth
from vitarium.objectives.distillation.base import PARENT
from vitarium.operators._runner.merge import merge
from vitarium.zoo import Zoo

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


@dataclass
class Students:
    """Makes students, and trains them unless `overrides` of their recipes are None."""

    zoo: Zoo
    stage: str
    overrides: Mapping[str, Any] | None
    normalization: Assumed | None
    making: Mapping[str, Any]
    """Options of `merge`."""
    growing: Mapping[str, Any]
    """Options of `grow`."""
    growth: Growth | None = None
    """Of all students so far."""

    def make(
        self, requests: Sequence[tuple[CheckpointRef, Section, Sequence[str]]]
    ) -> list[tuple[CheckpointRef, str]]:
        """Of each original, method and the models that it takes: original and id of its student."""
        ids = [
            self._made(models, method) if self._is_made(method) else ""
            for _, method, models in requests
        ]
        if self.overrides is None:
            return [(ref, id) for (ref, _, _), id in zip(requests, ids, strict=True)]
        assumed = None if self.normalization is None else _factor(self.normalization)
        specs = [
            (ref, _student_spec(self.zoo, ref, method, self.overrides, self.stage, assumed, id))
            for (ref, method, _), id in zip(requests, ids, strict=True)
        ]
        plan = Plan(self.stage, tuple({spec.id: spec for _, spec in specs}.values()))
        growth = grow(plan, self.zoo.path, **self.growing)
        self.growth = growth if self.growth is None else _joined(self.growth, growth)
        return [(ref, spec.id) for ref, spec in specs]

    def _is_made(self, method: Section) -> bool:
        """Whether training starts from a model that the method made; else it makes the start."""
        facts = method.plugin.facts
        return self.overrides is None or bool(facts["split"]) or facts["models"] != (1, 1)

    def _made(self, models: Sequence[str], method: Section) -> str:
        return merge(self.zoo, method, models=models, **self.making).id


def _joined(first: Growth, second: Growth) -> Growth:
    """What became of both plans."""
    plan = Plan(first.plan.name, (*first.plan.models, *second.plan.models))
    return Growth(
        first.zoo,
        plan,
        grown=first.grown + second.grown,
        existing=first.existing + second.existing,
        diverged=first.diverged | second.diverged,
        failed=first.failed | second.failed,
        skipped=first.skipped | second.skipped,
        time_is_up=first.time_is_up or second.time_is_up,
    )


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
    start_model: str,
) -> ModelSpec:
    """Of the student of a model, which starts from `start_model`, or what the method makes if "".

    Raises InvalidInput for a model that has not learned classes, or of which nobody knows how its
    images were normalized.
    """
    origin = zoo.spec(ref.model).origin
    conversion = None if start_model else method
    begin = CheckpointRef(start_model, 0) if start_model else ref
    training = method.plugin.facts["training"]
    num_outputs = zoo.folder(ref.model).about().num_outputs
    of_method = training(method.config, zoo[ref.model], num_outputs) if training else {}
    keep_head = "head" not in of_method
    begins: dict[str, Any] = {"models": [begin.model], "epoch": begin.epoch}
    start = Start.read({**begins, "operator": conversion, "keep_head": keep_head})
    taken: dict[str, Any] = {}
    if isinstance(origin, Recipe):
        if not origin.objective.plugin.facts.get("needs_head", True):
            raise InvalidInput(
                f"model {ref} was trained by {origin.objective.name} and gives no classes that a "
                "student could be taught; compress what was fine-tuned from it"
            )
        factors = origin.factors(defaults=False)
        taken = {name: factors[name] for name in _TAKEN if name in factors}
    settings = apply({**DEFAULTS, **taken}, {**of_method, **overrides})
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
    return ModelSpec(
        stage=stage, recipe=recipe, conversion=conversion, keep_head=keep_head, **origins
    )


def _taught_by(settings: Mapping[str, Any], teacher: CheckpointRef) -> dict[str, Any]:
    """Settings in which a teacher that would be the parent is that model."""
    chosen = section("objective", settings["objective"])
    if getattr(chosen.config, "teacher", None) != PARENT:
        return dict(settings)
    return {**settings, "objective": {**chosen.factors(defaults=False), "teacher": str(teacher)}}
