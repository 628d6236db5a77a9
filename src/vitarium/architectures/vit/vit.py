"""The plain vision transformer, with its usual sizes as factors."""

from collections.abc import Iterator
from functools import partial
from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from timm.layers.norm import LayerNorm
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from vitarium.architectures.base import DROP_RATES, TransformerConfig, architecture
from vitarium.architectures.symmetries.vit import vit_symmetries
from vitarium.core.errors import InvalidInput

TRAINING_FACTORS = (*DROP_RATES, "pos_drop_rate")
"""Of `Vit`."""


class Vit(TransformerConfig):
    """The plain vision transformer (timm's VisionTransformer); the defaults are ViT-Ti/16.

    images [batch, in_chans, img_size, img_size] -> outputs [batch, num_outputs]
    """

    embed_dim: PositiveInt = 192
    """Width of the residual stream: features per token."""
    depth: PositiveInt = 12
    """Number of transformer blocks."""
    num_heads: PositiveInt = 3
    """Attention heads per block; embed_dim has to be a multiple of it."""
    class_token: bool = True
    """Put a learned class token before the patches."""
    reg_tokens: NonNegativeInt = 0
    """Number of register tokens: learned tokens beside the patches (Darcet et al. 2024)."""
    no_embed_class: bool = False
    """Give position embeddings to patches only, not to the class token and registers."""
    global_pool: Literal["token", "avg"] = "token"
    """Features that the head sees: the class token (token), or the mean of the patches (avg)."""
    pos_drop_rate: float = Field(0.0, ge=0, lt=1)
    """Dropout rate after the position embeddings are added, in [0, 1)."""
    norm_eps: PositiveFloat = 1e-6
    """Epsilon of every LayerNorm, added to the variance; Hugging Face's ViT has 1e-12."""
    act_layer: Literal["gelu", "gelu_tanh", "quick_gelu", "relu", "silu"] = "gelu"
    """Activation function between the two layers of each MLP."""

    def arguments(self) -> dict[str, Any]:
        """What timm's VisionTransformer is built with, but for num_classes."""
        values = self.model_dump(include=set(Vit.model_fields) - {"norm_eps", "act_layer"})
        if self.norm_eps != Vit.model_fields["norm_eps"].default:
            values["norm_layer"] = partial(LayerNorm, eps=self.norm_eps)
        if self.act_layer != "gelu":
            values["act_layer"] = self.act_layer
        return values

    def mismatches(self) -> Iterator[str]:
        """See the base."""
        yield from super().mismatches()
        if self.embed_dim % self.num_heads:
            yield f"embed_dim {self.embed_dim} is not divisible by num_heads {self.num_heads}"
        if self.global_pool == "token" and not self.class_token:
            yield "global_pool 'token' needs the class token; use 'avg' without it"


def as_timm(config: Vit) -> tuple[str, dict[str, Any]]:
    """The name of a model of timm, and what to override to get this one."""
    arguments, eps = config.arguments(), config.norm_eps
    if "norm_layer" in arguments:
        raise InvalidInput(f"its norm_eps is {eps:g}, and timm's config.json knows 1e-06 alone")
    return "vit_tiny_patch16_224", arguments


@architecture(
    "vit",
    paper="Dosovitskiy et al. 2021, arXiv 2010.11929",
    timm=as_timm,
    symmetries=vit_symmetries,
    training_factors=TRAINING_FACTORS,
    tiny={"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2},
)
def vit(config: Vit, num_outputs: int) -> nn.Module:
    return VisionTransformer(**config.arguments(), num_classes=num_outputs)
