"""A plain ViT whose blocks differ in width, or whose heads do not fill the width."""

from collections.abc import Iterator
from typing import Any

from pydantic import PositiveInt
from timm.layers.attention import Attention
from timm.layers.mlp import Mlp
from timm.models._manipulate import named_apply
from timm.models.vision_transformer import VisionTransformer, init_weights_vit_timm
from torch import nn

from vitarium.architectures.base import architecture
from vitarium.architectures.elastic._uneven_attention import UnevenAttention, UnevenDeclaration
from vitarium.architectures.vit.vit import TRAINING_FACTORS, Vit

Numbers = tuple[PositiveInt, ...] | None
"""One for each block; None: as elsewhere in the configuration."""


class UnevenVit(Vit):
    """A ViT such as parts of larger ones are, and pruned ones."""

    head_dim: PositiveInt | None = None
    """Channels of each attention head; None: embed_dim / num_heads. Logits are scaled by
    head_dim**-0.5, also where qk_dims leave fewer channels."""
    heads: Numbers = None
    """Attention heads of each block, one number for each block; None: num_heads."""
    qk_dims: Numbers = None
    """Channels of each head's queries and keys, one number for each block; None: head_dim."""
    v_dims: Numbers = None
    """Channels of each head's values, one number for each block; None: head_dim."""
    hidden: Numbers = None
    """Hidden units of each block's MLP, one number for each block; None: mlp_ratio says them."""

    @property
    def channels(self) -> int:
        """Of each head, by which logits are scaled."""
        return self.head_dim or self.embed_dim // self.num_heads

    def mismatches(self) -> Iterator[str]:
        """See the base."""
        for fault in super().mismatches():
            if self.head_dim is None or "num_heads" not in fault:
                yield fault
        for name in ("heads", "qk_dims", "v_dims", "hidden"):
            numbers = getattr(self, name)
            if numbers is not None and len(numbers) != self.depth:
                yield f"{name} has {len(numbers)} numbers for {self.depth} blocks"

    def attention(self, number: int) -> nn.Module:
        """That of a block, from 0."""
        num_heads = self.num_heads if self.heads is None else self.heads[number]
        rates: dict[str, Any] = {"qkv_bias": self.qkv_bias, "attn_drop": self.attn_drop_rate}
        rates["proj_drop"] = self.proj_drop_rate
        dim, channels = self.embed_dim, self.channels
        if self.qk_dims is None and self.v_dims is None:
            return Attention(dim, num_heads, attn_head_dim=channels, **rates)
        qk_dim, v_dim = (channels if d is None else d[number] for d in (self.qk_dims, self.v_dims))
        return UnevenAttention(dim, num_heads, qk_dim, v_dim, channels**-0.5, **rates)


@architecture(
    "uneven_vit",
    symmetries=UnevenDeclaration.symmetries,
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
    """A plain ViT with MLPs of any width in each block, and any number of heads and channels."""
    sizes = config.arguments()
    of_attention = (config.head_dim, config.heads, config.qk_dims, config.v_dims)
    if config.head_dim is not None:
        sizes["num_heads"] = 1
    model = VisionTransformer(**sizes, num_classes=num_outputs)
    block: Any
    for number, block in enumerate(model.blocks):
        if any(size is not None for size in of_attention):
            block.attn = config.attention(number)
            named_apply(init_weights_vit_timm, block.attn, "attn")
        if config.hidden is not None:
            activation, width = block.mlp.act, config.hidden[number]
            block.mlp = Mlp(config.embed_dim, width, drop=config.proj_drop_rate)
            block.mlp.act = activation
            named_apply(init_weights_vit_timm, block.mlp, "mlp")
    return model
