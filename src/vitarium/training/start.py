"""What a model starts from: its architecture with its parent's weights, adapted."""

from collections.abc import Mapping

from torch import Tensor, nn

from vitarium.architectures.adaptation import start_weights
from vitarium.architectures.heads import is_head
from vitarium.blueprint import ModelSpec
from vitarium.core.devices import meta_device
from vitarium.core.registry import Section


def started_model(
    spec: ModelSpec,
    num_outputs: int,
    parent: Mapping[str, Tensor] | None = None,
    parent_architecture: Section | None = None,
) -> tuple[nn.Module, str]:
    """A model before its first step, and how its parent's weights were fitted to it.

    Args:
        parent: weights [*shape] by name, plain but for what the parent's adaptation added (prompts,
            adapters), with which a model of the same adaptation goes on. None: from scratch.
        parent_architecture: see `Task`.

    Raises IncompatibleWeights, and InvalidInput: see `Recipe.adapt`.
    """
    recipe = spec.recipe
    model = recipe.build_unadapted(num_outputs)
    if parent is None:
        recipe.adapt(model)
        return model, ""
    goes_on = recipe.adds_modules and has_additions(model, parent)
    if goes_on:
        recipe.adapt(model)
    parent_model: nn.Module | None = None
    unlike = parent_architecture not in (None, recipe.architecture)
    if parent_architecture and unlike and not parent_architecture.is_missing:
        with meta_device():
            parent_model = parent_architecture(1)
    weights, changes = start_weights(model, parent, head=spec.keep_head, parent_model=parent_model)
    model.load_state_dict(weights, strict=False)
    if not goes_on:
        recipe.adapt(model)
    return model, ", ".join(changes)


def has_additions(model: nn.Module, weights: Mapping[str, Tensor]) -> bool:
    """Whether some of the weights [*shape], heads aside, are none of the model's."""
    own = model.state_dict().keys()
    return any(name not in own and not is_head(model, name) for name in weights)
