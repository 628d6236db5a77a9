"""Models through whose blocks more tokens can go."""

from typing import Any, cast

from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn

from vitarium.core.errors import InvalidInput


def plain_vit(model: nn.Module, name: str) -> VisionTransformer:
    """The model, where more tokens can go through its blocks. Raises InvalidInput else."""
    vit: Any = model
    is_plain = isinstance(vit, VisionTransformer) and all(
        getattr(type(model), method) is getattr(VisionTransformer, method)
        for method in ("forward_features", "_pos_embed")
    )
    blocks = vit.blocks if is_plain else ()
    if not is_plain or any(type(block).__module__ != Block.__module__ for block in blocks):
        raise InvalidInput(
            f"adaptation '{name}': a {type(model).__name__} takes no prompts, which go through all "
            "blocks of a plain ViT; choose the architecture `vit` or `dinov2`, or an adaptation "
            "that goes with others: `adapter`, `lora`"
        )
    return cast(VisionTransformer, vit)
