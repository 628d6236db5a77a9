"""The plain ViT that computes what one with structured matrices does."""

from typing import Any

from vitarium.architectures.structured.structured_vit import StructuredVit
from vitarium.architectures.vit.vit import PlainVit
from vitarium.core.config import NoConfig
from vitarium.core.errors import IncompatibleWeights
from vitarium.core.registry import Section, choose
from vitarium.operators.base import Ingredients, NamedTensors, checked, operator
from vitarium.operators.compression._blocks import fused_block, split_block


def dense(config: NoConfig, architecture: Section | None) -> Section:
    """The `vit` of the same sizes. Raises IncompatibleWeights for what is no `structured_vit`."""
    if architecture is None or not isinstance(architecture.config, StructuredVit):
        name = architecture.name if architecture else "an unknown architecture"
        raise IncompatibleWeights(f"dense_form needs a structured_vit, not {name}")
    factors = architecture.factors(defaults=False)
    shared = {name: factors[name] for name in PlainVit.model_fields if name in factors}
    return choose("architecture", "vit", **shared)


@operator(
    "dense_form",
    title="Dense form",
    models=(1, 1),
    architecture=dense,
    tiny_architecture={"name": "structured_vit"},
)
def dense_form(config: NoConfig, ingredients: Ingredients) -> NamedTensors:
    """The plain ViT with the matrices that a structured model's factors make, the same function.

    Yields (name, tensor [*shape]) of a `vit`. So it can be aligned as such, and exported to timm.
    """
    (model,) = ingredients
    vit: Any = model.skeleton
    for name in ingredients.shapes:
        if not name.startswith("blocks."):
            yield name, checked(model, name)
    for number in range(len(vit.blocks)):
        ingredients.report(number, len(vit.blocks))
        block = fused_block(split_block(model, f"blocks.{number}."))
        for name, tensor in block.items():
            yield f"blocks.{number}.{name}", tensor
