"""A plain ViT whose blocks have MLPs of different widths, or heads that do not fill its width."""

from collections.abc import Iterator
from typing import Any

from pydantic import PositiveInt
from timm.layers.attention import Attention
from timm.layers.mlp import Mlp
from timm.models._manipulate import named_apply
from timm.models.vision_transformer import VisionTransformer, init_weights_vit_timm
from torch import nn

from vitarium.architectures.base import architecture
from vitarium.architectures.symmetries.vit import vit_symmetries
from vitarium.architectures.vit.vit import TRAINING_FACTORS, Vit


class UnevenVit(Vit):
    """A ViT such as parts of larger ones are."""

    head_dim: PositiveInt | None = None
    """Channels of each attention head; None: embed_dim / num_heads."""
    hidden: tuple[PositiveInt, ...] | None = None
    """Hidden units of each block's MLP, one number for each block; None: mlp_ratio says them."""

    def mismatches(self) -> Iterator[str]:
        """See the base."""
        for fault in super().mismatches():
            if self.head_dim is None or "num_heads" not in fault:
                yield fault
        if self.hidden is not None and len(self.hidden) != self.depth:
            yield f"hidden has {len(self.hidden)} numbers for {self.depth} blocks"


@architecture(
    "uneven_vit",
    symmetries=vit_symmetries,
    training_factors=TRAINING_FACTORS,
    tiny={
        "img_size": 16,
        "patch_size": 8,
        "embed_dim": 24,
        "depth": 2,
        "num_heads": 2,
        "head_dim": 5,
        "hidden": (7, 12),
    },
)
def uneven_vit(config: UnevenVit, num_outputs: int) -> nn.Module:
    """A plain ViT with MLPs of any width in each block, and heads of any number of channels."""
    sizes = config.arguments()
    if config.head_dim is not None:
        sizes["num_heads"] = 1
    model = VisionTransformer(**sizes, num_classes=num_outputs)
    block: Any
    for number, block in enumerate(model.blocks):
        if config.head_dim is not None:
            block.attn = Attention(
                config.embed_dim,
                config.num_heads,
                attn_head_dim=config.head_dim,
                qkv_bias=config.qkv_bias,
                attn_drop=config.attn_drop_rate,
                proj_drop=config.proj_drop_rate,
            )
            named_apply(init_weights_vit_timm, block.attn, "attn")
        if config.hidden is not None:
            activation, width = block.mlp.act, config.hidden[number]
            block.mlp = Mlp(config.embed_dim, width, drop=config.proj_drop_rate)
            block.mlp.act = activation
            named_apply(init_weights_vit_timm, block.mlp, "mlp")
    return model
