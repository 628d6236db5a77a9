"""What a model starts from: its parent, and what it takes from it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from vitarium.blueprint.normalization import MeanStd
from vitarium.blueprint.recipe import Imported, Recipe
from vitarium.blueprint.spec import ModelSpec
from vitarium.blueprint.stage import Start
from vitarium.core.config import InvalidConfig
from vitarium.core.errors import InvalidInput
from vitarium.core.registry import Section


@dataclass(frozen=True)
class Parent:
    """A model that others start from: of an earlier stage, or of the zoo that is grown."""

    id: str
    origin: Recipe | Imported
    epochs: tuple[int, ...]
    """Epochs whose weights there are, or will be; the last one is what children start from."""
    num_outputs: int | None = None
    """Of a model that lies elsewhere and will be imported; None: of the others it is known."""


class DivergedParent(InvalidInput):
    """A model of the zoo whose training diverged: nothing can start from it."""


Find = Callable[[Start], Sequence[Parent]]
"""Finds what a start names in a zoo."""
Check = Callable[[ModelSpec, Parent | None], None]
"""Raises InvalidConfig, with paths of the model's stage, for a model that could not be trained."""


def start_architecture(parent: Recipe | Imported, operator: Section | None) -> Section | None:
    """Of the weights from which training starts: the parent's, as the operator changes it.

    None where nothing here builds it. Raises as the operator does for one that it cannot change.
    """
    change = operator.plugin.facts.get("architecture") if operator else None
    if change and operator:
        changed: Section = change(operator.config, parent.architecture)
        return changed
    return parent.architecture


def inherited(
    settings: dict[str, Any], parent: Recipe | Imported | None, start: Start | None
) -> dict[str, Any]:
    """The settings, with what a model takes from its parent, but for what is set anew.

    That is the architecture, as the start's operator changes it, and the head where it is kept.
    Raises InvalidInput, and as the operator does for an architecture that it cannot change.
    """
    if parent is None or start is None:
        return settings
    complete = dict(settings)
    if names_architecture(settings):
        if start.operator and start.operator.plugin.facts.get("architecture"):
            raise InvalidInput("the operator decides the architecture; leave out its name")
    else:
        architecture = start_architecture(parent, start.operator)
        if architecture is None:
            raise InvalidInput("nothing here builds the parent's architecture")
        changes = settings.get("architecture", {})
        complete["architecture"] = {**architecture.factors(defaults=False), **changes}
    if start.keep_head and "head" not in settings and parent.head:
        complete["head"] = parent.head.factors(defaults=False)
    return complete


def with_parents_normalization(
    settings: dict[str, Any], parent: Recipe | Imported | None
) -> dict[str, Any]:
    """The settings with the parent's mean and std, unless they have some of their own.

    Raises InvalidInput where those of an imported parent make no sense.
    """
    if parent is None or "normalization" in settings:
        return settings
    try:
        inherited = parents_normalization(parent)
    except InvalidConfig as error:
        what = f"the parent's mean and std cannot be used ({'; '.join(map(str, error.problems))})"
        raise InvalidInput(f"{what}; set them anew, or `data` for the data set's") from None
    return {**settings, "normalization": inherited.factors()} if inherited else settings


def parents_normalization(parent: Recipe | Imported) -> MeanStd | None:
    """What children inherit; None: nothing, since it is not known, or that of a data set.

    Raises InvalidConfig.
    """
    if isinstance(parent, Recipe):
        return parent.normalization
    mean, std = (parent.settings.get(name) for name in ("data.mean", "data.std"))
    return None if mean is None or std is None else MeanStd.read({"mean": mean, "std": std})


def names_architecture(settings: dict[str, Any]) -> bool:
    """Whether a stage has an architecture of its own, instead of its parents' with changes."""
    changes = settings.get("architecture", {})
    return not isinstance(changes, dict) or "name" in changes
