"""A trained ViT for images of more channels, to which it is blind at first."""

import torch
from pydantic import PositiveInt

from vitarium.architectures.patch_tokens import require_plain
from vitarium.core.config import Config, InvalidConfig
from vitarium.core.devices import meta_device
from vitarium.core.errors import IncompatibleWeights, InvalidInput
from vitarium.core.registry import Section, section
from vitarium.operators.base import Ingredients, NamedTensors, checked, operator

_EMBEDDING = "patch_embed.proj.weight"


class AddedChannels(Config):
    channels: PositiveInt = 1
    """New channels, after those of the model: 1 for infrared or depth images beside RGB."""


def wider_architecture(config: AddedChannels, architecture: Section | None) -> Section:
    """The same with more `in_chans`. Raises IncompatibleWeights for anything but a plain ViT."""
    if architecture is None:
        raise IncompatibleWeights("added_channels needs a plain ViT, not an unknown architecture")
    try:
        with meta_device():
            require_plain(architecture(1), f"{architecture.name}: added_channels")
        count = architecture.config.input_size[0] + config.channels
        factors = architecture.factors(defaults=False) | {"in_chans": count}
        wider: Section = section("architecture", factors)
        return wider
    except (InvalidInput, InvalidConfig) as error:
        raise IncompatibleWeights(str(error)) from None


@operator(
    "added_channels",
    title="Added channels",
    models=(1, 1),
    architecture=wider_architecture,
    identity_on_copies=False,
)
def added_channels(config: AddedChannels, ingredients: Ingredients) -> NamedTensors:
    """A ViT for images of more channels, the same function of the first: new weights are zero.

    Yields (name, tensor [*shape]). Start a stage from it to train on images with a second modality
    a ViT that was trained on the first alone. Raises IncompatibleWeights for anything but a plain
    ViT.
    """
    (model,) = ingredients
    for name in ingredients.in_turn():
        weight = checked(model, name)
        if name == _EMBEDDING:
            width, _, *patch = weight.shape
            weight = torch.cat([weight, weight.new_zeros(width, config.channels, *patch)], dim=1)
        yield name, weight
