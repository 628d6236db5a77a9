"""Which models of a zoo are twins, of which originals, and by which methods."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cache

from vitarium.blueprint import CheckpointRef, ModelSpec
from vitarium.blueprint.recipe import flatten
from vitarium.blueprint.spec import Spec
from vitarium.core.errors import InvalidInput, UnknownName
from vitarium.core.registry import Section
from vitarium.zoo import Zoo

TRAINED = "trained"


@dataclass(frozen=True)
class Twin:
    """A model that a compression method made of another, or that was made of twins of one original
    alone; trained since or not.

    Args:
        parent: what it was made of, which may be a twin, too; of several the first.
        steps: the methods with their settings, from the original on; `TRAINED` is training.
        original: the first ancestor that is no twin.
    """

    ref: CheckpointRef
    parent: CheckpointRef
    steps: tuple[str, ...]
    original: CheckpointRef

    @property
    def method(self) -> str:
        """All steps with their settings: "evit keep_rate=0.7 + trained"."""
        return " + ".join(self.steps)

    @property
    def method_name(self) -> str:
        """Without settings: "evit"."""
        names = dict.fromkeys(step.partition(" ")[0] for step in self.steps if step != TRAINED)
        return " + ".join(names)


def find_twins(
    zoo: Zoo, ids: Collection[str]
) -> tuple[dict[CheckpointRef, list[Twin]], list[Twin]]:
    """By original, the finished twins that are among these models, or whose original is; and those
    whose original is not kept.

    Originals in order of id, twins in order of their methods.
    """

    @cache
    def twin_of(model: str) -> Twin | None:
        if not zoo.folder(model).exists:
            return None
        spec = zoo.spec(model)
        if len(spec.ingredients) > 1:
            parts = [twin_of(ref.model) for ref in spec.ingredients]
            originals = {part and part.original for part in parts}
            if None in originals or len(originals) > 1 or not spec.operator or not parts[0]:
                return None
            operator = (_described(spec.operator),)
            return Twin(zoo.at(model), spec.ingredients[0], operator, parts[0].original)
        if (step := _last_step(spec)) is None:
            return None
        (parent, steps), before = step, twin_of(step[0].model)
        if before:
            is_new_task = not _keeps_head(spec) and spec.stage != zoo.spec(parent.model).stage
            steps = (*before.steps, *steps)
            return None if is_new_task else Twin(zoo.at(model), parent, steps, before.original)
        compresses = any(part and _compresses(part) for part in _operators(spec))
        return Twin(zoo.at(model), parent, steps, parent) if compresses else None

    families: dict[CheckpointRef, list[Twin]] = {}
    for model in sorted(zoo.ids()):
        twin = twin_of(model) if zoo.folder(model).status == "finished" else None
        if twin and {model, twin.original.model} & set(ids):
            families.setdefault(twin.original, []).append(twin)
    left_out = [
        twin for original in families if not _is_kept(zoo, original) for twin in families[original]
    ]
    by_original = {
        original: sorted(families[original], key=lambda twin: (twin.method, twin.ref))
        for original in sorted(families)
        if _is_kept(zoo, original)
    }
    return by_original, left_out


def _is_kept(zoo: Zoo, ref: CheckpointRef) -> bool:
    try:
        zoo.at(str(ref))
    except (UnknownName, InvalidInput):
        return False
    return True


def _last_step(spec: Spec) -> tuple[CheckpointRef, tuple[str, ...]] | None:
    """What a model was made of by an operator, or trained from, and how; None: from scratch."""
    if spec.operator:
        return (spec.ingredients[0], (_described(spec.operator),)) if spec.ingredients else None
    if not isinstance(spec, ModelSpec) or spec.parent is None:
        return None
    conversion = (_described(spec.conversion),) if spec.conversion else ()
    return CheckpointRef(spec.parent, spec.parent_epoch or 0), (*conversion, TRAINED)


def _keeps_head(spec: Spec) -> bool:
    """Whether it gives the classes that its parent does."""
    return not isinstance(spec, ModelSpec) or bool(spec.operator) or spec.keep_head


def _operators(spec: Spec) -> list[Section | None]:
    return [spec.operator, spec.conversion if isinstance(spec, ModelSpec) else None]


def _compresses(operator: Section) -> bool:
    return bool(operator.plugin.facts["compression"])


def _described(operator: Section) -> str:
    factors = flatten(operator.factors(defaults=False)).items()
    settings = [f"{name}={value}" for name, value in factors if name != "name"]
    return " ".join([operator.name, *settings])
