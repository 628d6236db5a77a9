"""Swin Transformer, the first version."""

from typing import Annotated

from pydantic import Field

from vitarium.core.registry import Section, choose
from vitarium.formats._foreign_json import Depth, Epsilon, Rate, Ratio, Size
from vitarium.formats._transformers.base import (
    Family,
    NamedWeights,
    TransformersConfig,
    require,
    side,
)

_MAX_STAGES = 8


class SwinConfig(TransformersConfig):
    image_size: Size | list[Size]
    patch_size: Size | list[Size]
    num_channels: Size = 3
    embed_dim: Size
    depths: Annotated[list[Depth], Field(min_length=1, max_length=_MAX_STAGES)]
    num_heads: Annotated[list[Size], Field(min_length=1, max_length=_MAX_STAGES)]
    window_size: Size = 7
    mlp_ratio: Ratio = 4.0
    qkv_bias: bool = True
    hidden_dropout_prob: Rate = 0.0
    attention_probs_dropout_prob: Rate = 0.0
    drop_path_rate: Rate = 0.1
    hidden_act: str = "gelu"
    use_absolute_embeddings: bool = False
    layer_norm_eps: Epsilon = 1e-5


def _swin(config: SwinConfig, bare: bool) -> Section:
    """The mean of the last stage's tokens, after the last norm."""
    # there it is not of all norms
    require(config, hidden_act="gelu", use_absolute_embeddings=False, layer_norm_eps=1e-5)
    return choose(
        "architecture",
        "timm",
        model="swin_tiny_patch4_window7_224",
        img_size=side(config.image_size, "image_size"),
        patch_size=side(config.patch_size, "patch_size"),
        in_chans=config.num_channels,
        embed_dim=config.embed_dim,
        depths=config.depths,
        num_heads=config.num_heads,
        window_size=config.window_size,
        mlp_ratio=float(config.mlp_ratio),
        qkv_bias=config.qkv_bias,
        proj_drop_rate=config.hidden_dropout_prob,
        attn_drop_rate=config.attention_probs_dropout_prob,
        drop_path_rate=config.drop_path_rate,
    )


def _head_after_pooling(weights: NamedWeights) -> NamedWeights:
    return {
        f"head.fc.{name[5:]}" if name.startswith("head.") else name: tensor
        for name, tensor in weights.items()
    }


FAMILIES = {
    "SwinForImageClassification": Family(SwinConfig, _swin, _head_after_pooling),
    "SwinModel": Family(SwinConfig, _swin, has_classifier=False),
}
