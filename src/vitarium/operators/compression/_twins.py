"""A plain ViT's weights in another architecture that has them, too."""

from vitarium.core.config import Config, InvalidConfig
from vitarium.core.errors import IncompatibleWeights
from vitarium.core.registry import Section, choose
from vitarium.operators.base import ChangeArchitecture, Ingredients, NamedTensors, checked
from vitarium.operators.compression._plain_models import vit_section


def twin_section(name: str) -> ChangeArchitecture:
    """Gives the section of that architecture for a `vit`, or for a plain ViT of timm."""

    def change(config: Config, architecture: Section | None) -> Section:
        plain = vit_section(architecture, name)
        try:
            factors = {**plain.factors(defaults=False), **config.factors(defaults=False)}
            return choose("architecture", name, **{k: v for k, v in factors.items() if k != "name"})
        except InvalidConfig as error:
            raise IncompatibleWeights(f"{name} does not go with it: {error}") from None

    return change


def same_weights(ingredients: Ingredients) -> NamedTensors:
    """Yields (name, tensor [*shape]), those of the one model."""
    (model,) = ingredients
    for name in ingredients.in_turn():
        yield name, checked(model, name)
