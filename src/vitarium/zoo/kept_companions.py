"""What an objective brought beside a model, as it was after training: read back as a module."""

from typing import TYPE_CHECKING

from vitarium.blueprint import Recipe, Spec
from vitarium.core.errors import CorruptFile, InvalidInput
from vitarium.core.seeds import seeded
from vitarium.zoo._model_files import About
from vitarium.zoo.model_folder import ModelFolder

if TYPE_CHECKING:
    from torch import Tensor, nn


def load_companions(folder: ModelFolder) -> "nn.Module":
    """The companions of a model, in eval mode on the CPU.

    Raises InvalidInput where none are kept, and CorruptFile.
    """
    weights = companions_state(folder)
    companions = new_companions(folder.spec(), folder.about())
    try:
        companions.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise CorruptFile(folder.path, f"companions do not fit their objective: {error}") from None
    return companions.eval()


def companions_state(folder: ModelFolder) -> "dict[str, Tensor]":
    """Their weights and buffers, [*shape] by name; raises as `load_companions`."""
    companions = folder.companions()
    if companions is None:
        raise InvalidInput(f"model {folder.path.name} has no companions: {_reason(folder)}")
    return companions.state_dict()


def companions_epoch(folder: ModelFolder) -> int | None:
    """The epoch after which they are kept; None: they are not. Raises CorruptFile."""
    epochs = [epoch.number for epoch in folder.epochs() if epoch.companions]
    return epochs[-1] if epochs else None


def new_companions(spec: Spec, about: About) -> "nn.Module":
    """Those of a model before training, whose weights are those of no model in particular."""
    recipe = spec.origin
    assert isinstance(recipe, Recipe)
    objective = recipe.objective
    make = objective.plugin.facts["companions"]
    model = recipe.build(about.num_outputs, plain=False)
    with seeded(0):
        companions: nn.Module = make(objective.config, model, len(about.classes))
    return companions


def _reason(folder: ModelFolder) -> str:
    origin = folder.spec().origin
    if not isinstance(origin, Recipe):
        return "it was trained elsewhere"
    if folder.spec().operator:
        return "it was made of others"
    if not origin.objective.facts.get("companions"):
        return f"its objective '{origin.objective.name}' brings none"
    if not origin.keep_companions:
        return "they are kept of models that are trained with `keep_companions: true`"
    return "no epoch is finished"
