"""Swin Transformer, the first version."""

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import Field
from timm.models.swin_transformer import SwinTransformer

from vitarium.architectures.vit.dinov2 import ratio
from vitarium.core.registry import Section, choose
from vitarium.formats._foreign_json import Depth, Epsilon, Rate, Ratio, Size
from vitarium.formats._names import NAMES
from vitarium.formats._transformers.base import (
    Counterpart,
    Family,
    NamedWeights,
    TransformersConfig,
    require,
    side,
)
from vitarium.formats._transformers.built import (
    activation,
    drop_path_rate,
    image_settings,
    layer_faults,
)

_MAX_STAGES = 8
_EPS = 1e-5  # of all norms


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
    layer_norm_eps: Epsilon = _EPS


def _swin(config: SwinConfig, bare: bool) -> Section:
    """The mean of the last stage's tokens, after the last norm."""
    # there it is not of all norms
    require(config, hidden_act="gelu", use_absolute_embeddings=False, layer_norm_eps=_EPS)
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


def _blocks(model: Any) -> list[Any]:
    return [block for stage in model.layers for block in stage.blocks]


def _faults(model: Any) -> Iterator[str]:
    if model.global_pool != "avg":
        yield f"its head sees global_pool '{model.global_pool}', and there the mean"
    windows = {side for block in _blocks(model) for side in block.attn.window_size}
    if len(windows) > 1:
        yield f"its windows are {', '.join(map(str, sorted(windows)))} wide, and there of one width"
    if activation(model) != "gelu":
        yield f"its activation is {activation(model)}"
    # before attention and MLP, of patches, where stages begin, and the last
    yield from layer_faults(model, 2 * len(_blocks(model)) + len(model.layers) + 1)
    if model.norm.eps != _EPS:
        yield f"the epsilon of its norms is {model.norm.eps:g}, and there {_EPS:g}"


def _settings(model: Any) -> dict[str, Any]:
    blocks = _blocks(model)
    attention, mlp = blocks[0].attn, blocks[0].mlp
    return {
        **image_settings(model),
        "embed_dim": model.patch_embed.proj.out_channels,
        "depths": [len(stage.blocks) for stage in model.layers],
        "num_heads": [stage.blocks[0].attn.num_heads for stage in model.layers],
        "window_size": attention.window_size[0],
        "mlp_ratio": ratio(mlp.fc1.out_features, mlp.fc1.in_features),
        "qkv_bias": attention.qkv.bias is not None,
        "hidden_dropout_prob": attention.proj_drop.p,
        "attention_probs_dropout_prob": attention.attn_drop.p,
        "drop_path_rate": drop_path_rate(blocks[-1]),
        "hidden_act": "gelu",
        "layer_norm_eps": _EPS,
    }


_TABLE = "relative_position_bias_table"
COUNTERPARTS = (
    Counterpart(
        lambda model: type(model) is SwinTransformer,
        "swin",
        "SwinForImageClassification",
        "SwinModel",
        NAMES
        | {
            "patch_embed.norm": "embeddings.norm",
            "attn.qkv": "attention.self.{}",
            f"attn.{_TABLE}": f"attention.self.{_TABLE}",
            "downsample": "downsample",
            "head.fc": "classifier",
        },
        _faults,
        _settings,
    ),
)
