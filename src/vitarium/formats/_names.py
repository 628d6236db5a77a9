"""What Hugging Face calls the settings and tensors of ViT and DINOv2, and what timm does."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vitarium.architectures.vit.dinov2 import ratio
from vitarium.core.errors import InvalidInput
from vitarium.core.registry import Section, choose

KINDS = {
    **dict.fromkeys(("ViTForImageClassification", "ViTModel"), "vit"),
    **dict.fromkeys(("Dinov2ForImageClassification", "Dinov2Model"), "dinov2"),
}
"""What a config.json calls the architecture, and its kind."""

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
}
"""`hidden_act` -> `act_layer`."""

# transformers 5 has modules under shorter names, and files under these or those.
_TO_TIMM = [
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"(?:encoder\.)?layers?\.(\d+)\.", r"blocks.\1."),
    (r"\.(?:layernorm_before|norm1)\.", ".norm1."),
    (r"\.(?:layernorm_after|norm2)\.", ".norm2."),
    (r"\.attention\.(?:attention\.query|q_proj)\.", ".attn.q."),
    (r"\.attention\.(?:attention\.key|k_proj)\.", ".attn.k."),
    (r"\.attention\.(?:attention\.value|v_proj)\.", ".attn.v."),
    (r"\.attention\.(?:output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.layer_scale(\d)\.lambda1", r".ls\1.gamma"),
    (r"\.(?:intermediate\.dense|mlp\.fc1|mlp\.weights_in)\.", ".mlp.fc1."),
    (r"\.(?:output\.dense|mlp\.fc2|mlp\.weights_out|mlp\.down_proj)\.", ".mlp.fc2."),
    (r"\.mlp\.gate_proj\.", ".mlp.gate."),
    (r"\.mlp\.up_proj\.", ".mlp.up."),
    (r"^layernorm\.", "norm."),
    (r"^classifier\.", "head."),
]
_FUSED = {"attn.qkv": ("attn.q", "attn.k", "attn.v"), "mlp.fc1": ("mlp.gate", "mlp.up")}
_UNUSED = re.compile(r"pooler\.|embeddings\.mask_token$")
"""What a classifier of images has no use for."""

_FROM_TIMM = {
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj": "embeddings.patch_embeddings.projection",
    "norm": "layernorm",
}
_FROM_TIMM_BLOCK = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}


def architecture(config: Mapping[str, Any], kind: str, *, headless: bool) -> Section:
    """That of a config.json. Raises InvalidInput for what has no exact counterpart here,
    KeyError for what is missing."""
    width, act = config["hidden_size"], config.get("hidden_act", "gelu")
    if act not in ACTIVATIONS:
        raise InvalidInput(f"its hidden_act is '{act}'; known are {', '.join(ACTIVATIONS)}")
    dropout = config.get("hidden_dropout_prob", 0.0)
    settings: dict[str, Any] = {
        "img_size": _side(config, "image_size"),
        "patch_size": _side(config, "patch_size"),
        "in_chans": config.get("num_channels", 3),
        "embed_dim": width,
        "depth": config["num_hidden_layers"],
        "num_heads": config["num_attention_heads"],
        "qkv_bias": config.get("qkv_bias", True),
        "pos_drop_rate": dropout,
        "proj_drop_rate": dropout,
        "attn_drop_rate": config.get("attention_probs_dropout_prob", 0.0),
        "act_layer": ACTIVATIONS[act],
    }
    if kind == "vit":
        settings["mlp_ratio"] = ratio(config["intermediate_size"], width)
        settings["norm_eps"] = config.get("layer_norm_eps", 1e-12)
    else:
        settings["mlp_ratio"] = float(config.get("mlp_ratio", 4))
        settings["norm_eps"] = config.get("layer_norm_eps", 1e-6)
        settings["init_values"] = config.get("layerscale_value", 1.0)
        settings["swiglu"] = config.get("use_swiglu_ffn", False)
        settings["patch_mean"] = not headless
    return choose("architecture", kind, **settings)


def to_timm(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under timm's names; queries, keys and values as one. Unknown names stay."""
    named: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        short = re.sub(r"^(?:vit|dinov2)\.", "", name)
        if _UNUSED.match(short):
            continue
        for pattern, ours in _TO_TIMM:
            short = re.sub(pattern, ours, short)
        named[short] = tensor
    for fused_name, parts in _FUSED.items():
        first = f".{parts[0]}."
        for name in [name for name in named if first in name]:
            names = [name.replace(first, f".{part}.") for part in parts]
            if all(part in named for part in names):
                fused = torch.cat([named.pop(part) for part in names])
                named[name.replace(first, f".{fused_name}.")] = fused
    return named


def from_timm(weights: Mapping[str, Tensor], *, headless: bool) -> dict[str, Tensor]:
    """The inverse for ViTForImageClassification, under names that all versions of it read."""
    renamed: dict[str, Tensor] = {}
    prefix = "" if headless else "vit."
    for name, tensor in weights.items():
        stem, _, end = name.rpartition(".")
        block = re.fullmatch(r"blocks\.(\d+)\.(.+)", stem)
        layer = f"{prefix}encoder.layer.{block[1]}" if block else ""
        if name.startswith("head."):
            renamed[name.replace("head.", "classifier.")] = tensor
        elif name in _FROM_TIMM:
            renamed[prefix + _FROM_TIMM[name]] = tensor
        elif block is None:
            renamed[f"{prefix}{_FROM_TIMM[stem]}.{end}"] = tensor
        elif block[2] == "attn.qkv":
            for part, chunk in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                renamed[f"{layer}.attention.attention.{part}.{end}"] = chunk
        else:
            renamed[f"{layer}.{_FROM_TIMM_BLOCK[block[2]]}.{end}"] = tensor
    return renamed


def _side(config: Mapping[str, Any], name: str) -> int:
    value = config[name]
    sides: set[int] = {value} if isinstance(value, int) else set(value)
    if len(sides) != 1:
        raise InvalidInput(f"its {name} is {value}; images and patches have to be square here")
    return sides.pop()
