"""DINOv3's vision transformers."""

from typing import Annotated

from pydantic import Field

from vitarium.core.errors import InvalidInput
from vitarium.core.registry import Section, choose
from vitarium.formats._foreign_json import Count, Epsilon, Rate
from vitarium.formats._transformers.base import (
    Family,
    MlpConfig,
    NamedWeights,
    layer_norm_eps,
    require,
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


def _as_eva(weights: NamedWeights) -> NamedWeights:
    """timm's names for what it builds them of, its EVA."""
    converted: NamedWeights = {}
    for name, tensor in weights.items():
        if name == "reg_token" and not tensor.numel():
            continue
        if ".mlp.fc1." in name:  # gated: gate and value were joined, as DINOv2 has them
            for part, half in zip(("fc1_g", "fc1_x"), tensor.chunk(2), strict=True):
                converted[name.replace(".fc1.", f".{part}.")] = half
            continue
        for old, new in _PARTS.items():
            name = name.replace(old, new)
        converted[name] = tensor
    return converted


FAMILIES = {"DINOv3ViTModel": Family(Dinov3Config, _dinov3, _as_eva, has_classifier=False)}
