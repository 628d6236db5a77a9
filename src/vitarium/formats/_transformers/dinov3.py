"""DINOv3's vision transformers."""

from collections.abc import Iterator
from typing import Annotated, Any

import torch
from pydantic import Field
from timm.layers.mlp import Mlp, SwiGLU
from timm.layers.pos_embed_sincos import RotaryEmbeddingDinoV3
from timm.models.eva import Eva, EvaAttention, EvaBlock
from torch import nn

from vitarium.core.errors import InvalidInput
from vitarium.core.registry import Section, choose
from vitarium.formats._foreign_json import Count, Epsilon, Rate
from vitarium.formats._transformers.base import (
    Counterpart,
    Family,
    MlpConfig,
    NamedWeights,
    layer_norm_eps,
    require,
)
from vitarium.formats._transformers.built import (
    activation,
    drop_path_rate,
    layer_faults,
    tower_settings,
)


class Dinov3Config(MlpConfig):
    layer_norm_eps: Epsilon = 1e-5
    attention_dropout: Rate = 0.0
    drop_path_rate: Rate = 0.0
    layerscale_value: float = 1.0
    rope_theta: Annotated[float, Field(gt=0)] = 100.0
    num_register_tokens: Count = 0
    query_bias: bool = True
    key_bias: bool = False
    value_bias: bool = True
    proj_bias: bool = True
    mlp_bias: bool = True
    use_gated_mlp: bool = False


def _dinov3(config: Dinov3Config, bare: bool) -> Section:
    """The class token after the last norm."""
    act = "silu" if config.use_gated_mlp else "gelu"
    require(config, hidden_act=act, key_bias=False, proj_bias=True, mlp_bias=True)
    if config.query_bias != config.value_bias:
        raise InvalidInput("its queries or its values have a bias; timm's both have one, or none")
    if config.layerscale_value <= 0:
        raise InvalidInput(f"its layerscale_value is {config.layerscale_value}, not above 0")
    gated = {"swiglu_mlp": True, "swiglu_align_to": 1} if config.use_gated_mlp else {}
    return choose(
        "architecture",
        "timm",
        model="vit_small_patch16_dinov3",
        **config.sizes(),
        **gated,
        **layer_norm_eps(config.layer_norm_eps, 1e-5),
        qkv_bias=config.query_bias,
        mlp_ratio=config.mlp_ratio,
        attn_drop_rate=config.attention_dropout,
        drop_path_rate=config.drop_path_rate,
        init_values=config.layerscale_value,
        rope_temperature=config.rope_theta,
        num_reg_tokens=config.num_register_tokens,
        global_pool="token",
    )


_PARTS = {".mlp.up.": ".mlp.fc1.", ".ls1.gamma": ".gamma_1", ".ls2.gamma": ".gamma_2"}
_GATED = ("fc1_g", "fc1_x")


def _as_eva(weights: NamedWeights) -> NamedWeights:
    """timm's names for what it builds them of, its EVA."""
    converted: NamedWeights = {}
    for name, tensor in weights.items():
        if name == "reg_token" and not tensor.numel():
            continue
        if ".mlp.fc1." in name:  # gated: gate and value were joined, as DINOv2 has them
            for part, half in zip(_GATED, tensor.chunk(2), strict=True):
                converted[name.replace(".fc1.", f".{part}.")] = half
            continue
        for old, new in _PARTS.items():
            name = name.replace(old, new)
        converted[name] = tensor
    return converted


FAMILIES = {"DINOv3ViTModel": Family(Dinov3Config, _dinov3, _as_eva, has_classifier=False)}


def _is_gated(model: Any) -> bool:
    return isinstance(model.blocks[0].mlp, SwiGLU)


def _faults(model: Any) -> Iterator[str]:
    """In what one of timm's EVAs that has DINOv3's positions differs."""
    rope, attention = model.rope, model.blocks[0].attn
    if model.global_pool != "token" or not isinstance(model.fc_norm, nn.Identity):
        yield f"its head sees global_pool '{model.global_pool}', and there the class token alone"
    for block in model.blocks:
        if (type(block), type(block.attn)) != (EvaBlock, EvaAttention):
            yield f"its blocks are of {type(block).__name__}, {type(block.attn).__name__}"
    if not rope.rotate_half or rope.normalize_coords != "separate" or rope.temperature is None:
        yield "its positions rotate in another way"
    if activation(model) != ("silu" if _is_gated(model) else "gelu"):
        yield f"its activation is {activation(model)}"
    if attention.qkv.bias is not None:
        yield "its keys have a bias, and there they have none"
    yield from layer_faults(model, 2 * len(model.blocks) + 1, Mlp, SwiGLU)


def _settings(model: Any) -> dict[str, Any]:
    block = model.blocks[0]
    has_bias = block.attn.q_bias is not None
    return {
        **tower_settings(model),
        "drop_path_rate": drop_path_rate(model.blocks[-1]),
        "layerscale_value": 1.0,  # before training
        "rope_theta": model.rope.temperature,
        "num_register_tokens": 0 if model.reg_token is None else model.reg_token.shape[1],
        "query_bias": has_bias,
        "key_bias": False,
        "value_bias": has_bias,
        "use_gated_mlp": _is_gated(model),
    }


def _with_tokens(weights: NamedWeights) -> NamedWeights:
    """The mask token serves training alone; of registers there may be none."""
    token = weights["cls_token"]
    return {"reg_token": token[:, :0], "mask_token": torch.zeros_like(token), **weights}


COUNTERPARTS = (
    Counterpart(
        lambda model: type(model) is Eva and isinstance(model.rope, RotaryEmbeddingDinoV3),
        "dinov3_vit",
        "",
        "DINOv3ViTModel",
        {
            "cls_token": "embeddings.cls_token",
            "mask_token": "embeddings.mask_token",
            "reg_token": "embeddings.register_tokens",
            "patch_embed.proj": "embeddings.patch_embeddings",
            "norm": "norm",
            "norm1": "norm1",
            "norm2": "norm2",
            "gamma_1": "layer_scale1.lambda1",
            "gamma_2": "layer_scale2.lambda1",
            "attn.qkv": "attention.{}_proj",
            "attn.q_bias": "attention.q_proj.bias",
            "attn.v_bias": "attention.v_proj.bias",
            "attn.proj": "attention.o_proj",
            "mlp.fc1": "mlp.up_proj",
            **dict(
                zip((f"mlp.{p}" for p in _GATED), ("mlp.gate_proj", "mlp.up_proj"), strict=True)
            ),
            "mlp.fc2": "mlp.down_proj",
        },
        _faults,
        _settings,
        _with_tokens,
        layer="layer",
        prefix="",
    ),
)
