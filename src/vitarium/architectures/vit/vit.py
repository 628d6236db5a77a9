"""The plain vision transformer, with its usual sizes as factors."""

import math
from collections.abc import Iterator
from functools import partial
from typing import Any, Literal

import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from timm.layers.norm import LayerNorm
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from vitarium.architectures.base import (
    DROP_RATES,
    TransformerConfig,
    architecture,
    without_hidden_units,
)
from vitarium.architectures.symmetries.base import Axis
from vitarium.architectures.symmetries.vit import Readers, VitDeclaration
from vitarium.core.errors import InvalidInput

TRAINING_FACTORS = (*DROP_RATES, "pos_drop_rate")
"""Of `Vit`."""
_LARGEST_SCALE = 100.0


class Vit(TransformerConfig):
    """What vision transformers on timm's VisionTransformer share; the defaults are ViT-Ti/16.

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
        yield from without_hidden_units(self.embed_dim, mlp_ratio=self.mlp_ratio)


class PlainVit(Vit):
    """The plain vision transformer (timm's VisionTransformer); the defaults are ViT-Ti/16."""

    attention: Literal["softmax", "qk_norm", "cosine"] = "softmax"
    """Logits of the attention: scaled inner products (softmax); those of queries and keys after a
    LayerNorm over each head's channels (qk_norm; Dehghani et al. 2023, arXiv 2302.05442, Sec. 2);
    or cosines times a learned factor of each head (cosine; Liu et al. 2022, arXiv 2111.09883)."""
    init_values: PositiveFloat | None = None
    """Initial value of the layer scales, the learned factors of each branch's channels (Touvron et
    al. 2021, arXiv 2103.17239); null: no layer scales."""

    def arguments(self) -> dict[str, Any]:
        """What timm's VisionTransformer is built with, but for num_classes and cosines."""
        values = super().arguments()
        if self.attention == "qk_norm":
            values["qk_norm"] = True
        if self.init_values is not None:
            values["init_values"] = self.init_values
        return values


class CosineQueries(nn.Module):
    """Queries of length one, times a learned factor of each head: [batch, heads, n, head_dim].

    With `CosineKeys` the logits of timm's attention are cosines times exp(logit_scale), which
    starts at 10 and is at most 100 (Liu et al. 2022, arXiv 2111.09883, Sec. 3.2: 1 / tau).
    """

    def __init__(self, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.logit_scale = nn.Parameter(torch.full((num_heads,), math.log(10)))
        self.unscaled = math.sqrt(head_dim)  # by whose inverse attention multiplies the logits

    def forward(self, queries: Tensor) -> Tensor:
        scale = self.logit_scale.clamp(max=math.log(_LARGEST_SCALE)).exp() * self.unscaled
        return (F.normalize(queries, dim=-1) * scale.view(-1, 1, 1)).to(queries.dtype)


class CosineKeys(nn.Module):
    """Keys of length one, [batch, heads, n, head_dim]; see `CosineQueries`."""

    def forward(self, keys: Tensor) -> Tensor:
        return F.normalize(keys, dim=-1).to(keys.dtype)


class PlainDeclaration(VitDeclaration):
    """The symmetries of `vit`."""

    def attention(self, at: str, attention: Any) -> Readers:
        """Cosines stay the same where queries and keys are rotated; each head has its factor."""
        if not isinstance(attention.q_norm, CosineQueries):
            return super().attention(at, attention)
        self.heads_of(at, attention, normed=False, logits_of="orthogonal")
        heads = (Axis(f"{at}.heads"),)
        self.piece(f"{at}.q_norm.logit_scale", (attention.num_heads,), heads)
        return [(f"{at}.qkv", attention.qkv)]


def as_timm(config: Vit) -> tuple[str, dict[str, Any]]:
    """The name of a model of timm, and what to override to get this one."""
    arguments, eps = config.arguments(), config.norm_eps
    if "norm_layer" in arguments:
        raise InvalidInput(f"its norm_eps is {eps:g}, and timm's config.json knows 1e-06 alone")
    return "vit_tiny_patch16_224", arguments


def _as_timm(config: PlainVit) -> tuple[str, dict[str, Any]]:
    if config.attention == "cosine":
        raise InvalidInput("its attention is 'cosine', which timm's vision transformer has not")
    return as_timm(config)


@architecture(
    "vit",
    paper="Dosovitskiy et al. 2021, arXiv 2010.11929",
    timm=_as_timm,
    symmetries=PlainDeclaration.symmetries,
    training_factors=(*TRAINING_FACTORS, "init_values"),
    tiny={"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2},
)
def vit(config: PlainVit, num_outputs: int) -> nn.Module:
    model = VisionTransformer(**config.arguments(), num_classes=num_outputs)
    if config.attention == "cosine":
        attend_by_cosines(model)
    return model


def attend_by_cosines(model: VisionTransformer) -> None:
    """Let the logits of all blocks of a model without norms of queries be cosines, in place."""
    for block in model.blocks:
        attention: Any = block.attn
        attention.q_norm = CosineQueries(attention.num_heads, attention.head_dim)
        attention.k_norm = CosineKeys()
