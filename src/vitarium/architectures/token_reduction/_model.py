"""What architectures that reduce tokens are built with, and the symmetries that they have."""

from collections.abc import Callable
from functools import partial
from typing import Any

from timm.models.vision_transformer import VisionTransformer

from vitarium.architectures.token_reduction._attention import AttendingBlock
from vitarium.architectures.vit.vit import PlainDeclaration, PlainVit, attend_by_cosines


def reducing_vit(
    transformer: type[VisionTransformer],
    block: Callable[..., AttendingBlock],
    config: PlainVit,
    num_outputs: int,
) -> VisionTransformer:
    """A transformer of such blocks, which are told their number and the configuration."""
    block_fn: Any = partial(block, config=config)
    model = transformer(**config.arguments(), block_fn=block_fn, num_classes=num_outputs)
    if config.attention == "cosine":
        attend_by_cosines(model)
    return model


class ReducingDeclaration(PlainDeclaration):
    """Those of `vit`: what tokens are reduced by is the same after all of them, unless a subclass
    says otherwise."""

    def block(self, at: str, block: Any) -> None:
        self.branches(at, block)
