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
    """A model that a compression method made of another, trained since or not.

    Args:
        parent: what it was made of, which may be a twin, too.
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
        step = _last_step(zoo.spec(model)) if zoo.folder(model).exists else None
        if step is None:
            return None
        (parent, steps), before = step, twin_of(step[0].model)
        if before:
            return Twin(zoo.at(model), parent, (*before.steps, *steps), before.original)
        return None if steps == (TRAINED,) else Twin(zoo.at(model), parent, steps, parent)

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
    """What a twin was made of, and how; None of a model that neither a compression method made, nor
    training went on with, head included."""
    if spec.operator:
        if not _compresses(spec.operator) or len(spec.ingredients) != 1:
            return None
        return spec.ingredients[0], (_described(spec.operator),)
    if not isinstance(spec, ModelSpec) or spec.parent is None:
        return None
    parent = CheckpointRef(spec.parent, spec.parent_epoch or 0)
    if spec.conversion:
        how = (_described(spec.conversion), TRAINED)
        return (parent, how) if _compresses(spec.conversion) else None
    return (parent, (TRAINED,)) if spec.keep_head else None


def _compresses(operator: Section) -> bool:
    return bool(operator.plugin.facts["compression"])


def _described(operator: Section) -> str:
    factors = flatten(operator.factors(defaults=False)).items()
    settings = [f"{name}={value}" for name, value in factors if name != "name"]
    return " ".join([operator.name, *settings])
