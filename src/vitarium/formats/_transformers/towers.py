"""The image towers of CLIP and SigLIP."""

from collections.abc import Iterator
from typing import Any

import torch
from timm.layers.mlp import Mlp
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from vitarium.core.errors import InvalidInput
from vitarium.core.registry import Section, choose
from vitarium.formats._foreign_json import Epsilon, Rate, Size
from vitarium.formats._transformers.base import (
    Counterpart,
    Family,
    MlpConfig,
    NamedWeights,
    TransformersConfig,
    layer_norm_eps,
    require,
)
from vitarium.formats._transformers.built import block_faults, is_mean_of_patches, tower_settings


class ClipConfig(MlpConfig):
    hidden_act: str = "quick_gelu"
    layer_norm_eps: Epsilon = 1e-5
    attention_dropout: Rate = 0.0


class ProjectedClipConfig(ClipConfig):
    projection_dim: Size = 512


class SiglipConfig(MlpConfig):
    hidden_act: str = "gelu_pytorch_tanh"
    layer_norm_eps: Epsilon = 1e-6
    attention_dropout: Rate = 0.0
    vision_use_head: bool = True


class SiglipClassifierConfig(TransformersConfig):
    vision_config: SiglipConfig


def _arguments(config: ClipConfig | SiglipConfig) -> dict[str, Any]:
    return {
        **config.sizes(),
        "mlp_ratio": config.mlp_ratio,
        "act_layer": config.act_layer,
        "attn_drop_rate": config.attention_dropout,
    }


def _clip(config: ClipConfig, bare: bool) -> Section:
    """The class token after the last norm; through the projection, where there is one."""
    arguments = _arguments(config) | layer_norm_eps(config.layer_norm_eps, 1e-5)
    return choose("architecture", "timm", model="vit_base_patch16_clip_224", **arguments)


def _siglip(config: SiglipConfig, bare: bool) -> Section:
    """What its head, a probe that attends to all patches, gives."""
    require(config, vision_use_head=True)
    arguments = _arguments(config) | layer_norm_eps(config.layer_norm_eps, 1e-6)
    return choose("architecture", "timm", model="vit_base_patch16_siglip_224", **arguments)


def _mean_of_patches(config: SiglipClassifierConfig, bare: bool) -> Section:
    tower = config.vision_config
    arguments = _arguments(tower) | layer_norm_eps(tower.layer_norm_eps, 1e-6)
    model = "vit_base_patch16_siglip_gap_224"
    return choose("architecture", "timm", model=model, **arguments, fc_norm=False)


def _positions(weights: NamedWeights) -> NamedWeights:
    """[tokens, width] -> [1, tokens, width], and the class token likewise."""
    weights = {name: tensor for name, tensor in weights.items() if "position_ids" not in name}
    for name in {"pos_embed", "cls_token"} & weights.keys():
        weights[name] = weights[name].reshape(1, -1, weights[name].shape[-1])
    return weights


def _with_bias(weights: NamedWeights) -> NamedWeights:
    """timm's head has a bias; of CLIP's projection it is 0."""
    bias = torch.zeros(len(weights["head.weight"]), dtype=weights["head.weight"].dtype)
    return {**_positions(weights), "head.bias": bias}


_POOL = {
    "attn_pool.latent": "head.probe",
    "attn_pool.proj": "head.attention.out_proj",
    "attn_pool.norm": "head.layernorm",
    "attn_pool.mlp": "head.mlp",
}
"""What timm's attention pool is made of -> what SigLIP's head is."""


def _attention_pool(weights: NamedWeights) -> NamedWeights:
    converted: NamedWeights = {}
    for name, tensor in _positions(weights).items():
        if name.startswith("head.attn.in_proj_"):
            end, width = name.rpartition("_")[2], len(tensor) // 3
            converted[f"attn_pool.q.{end}"] = tensor[:width]
            converted[f"attn_pool.kv.{end}"] = tensor[width:]
            continue
        for new, old in _POOL.items():
            name = name.replace(old.replace("attention.out_proj", "attn.proj"), new)
        converted[name] = tensor
    return converted


def _without_pool(weights: NamedWeights) -> NamedWeights:
    """A classifier of the mean patch leaves out the tower's own head."""
    parts = ("head.attn.", "head.probe", "head.layernorm.", "head.mlp.")
    return _positions({n: tensor for n, tensor in weights.items() if not n.startswith(parts)})


FAMILIES = {
    "CLIPVisionModel": Family(ClipConfig, _clip, _positions, has_classifier=False),
    "CLIPVisionModelWithProjection": Family(ProjectedClipConfig, _clip, _with_bias),
    "SiglipVisionModel": Family(SiglipConfig, _siglip, _attention_pool, has_classifier=False),
    "SiglipForImageClassification": Family(SiglipClassifierConfig, _mean_of_patches, _without_pool),
}


def _faults_of_clip(model: Any) -> Iterator[str]:
    if model.global_pool != "token" or not isinstance(model.fc_norm, nn.Identity):
        yield f"its head sees global_pool '{model.global_pool}', and there the class token alone"
    if model.blocks[0].attn.qkv.bias is None:
        yield "its attention has no biases, and there it has"
    yield from block_faults(model, Mlp, 1, norms=2)


def _faults_of_siglip(model: Any, norms: int = 1) -> Iterator[str]:
    if model.blocks[0].attn.qkv.bias is None:
        yield "its attention has no biases, and there it has"
    yield from block_faults(model, Mlp, 0, norms)


def _is_plain(model: Any) -> bool:
    return type(model) is VisionTransformer


def _is_of_siglip(model: Any) -> bool:
    """By its name in timm: I-JEPA's models are built alike."""
    described = getattr(model, "pretrained_cfg", None) or {}
    return "siglip" in (described.get("architecture") or "")


def _clip_settings(model: Any) -> dict[str, Any]:
    outputs = getattr(model.head, "out_features", None)
    return {**tower_settings(model), **({"projection_dim": outputs} if outputs else {})}


def _flat_positions(weights: NamedWeights) -> NamedWeights:
    """The inverse of `_positions`, of a class token's, too."""
    flat = {"pos_embed": lambda t: t[0], "cls_token": lambda t: t.flatten()}
    return {name: flat[name](t) if name in flat else t for name, t in weights.items()}


def _without_bias(weights: NamedWeights) -> NamedWeights:
    bias = weights.get("head.bias")
    if bias is not None and not bias.is_meta and bias.any():
        raise InvalidInput("its head has a bias that is not 0, and there a projection has none")
    return _flat_positions({n: tensor for n, tensor in weights.items() if n != "head.bias"})


def _attention_head(weights: NamedWeights) -> NamedWeights:
    """Queries, keys and values as one."""
    converted = _flat_positions(weights)
    for end in ("weight", "bias"):
        parts = [f"attn_pool.{part}.{end}" for part in ("q", "kv")]
        if all(part in converted for part in parts):
            joined = torch.cat([converted.pop(part) for part in parts])
            converted[f"attn_pool.in_proj_{end}"] = joined
    return converted


_TOWER = {
    "cls_token": "embeddings.class_embedding",
    "pos_embed": "embeddings.position_embedding.weight",
    "patch_embed.proj": "embeddings.patch_embedding",
    "norm_pre": "pre_layrnorm",  # sic
    "norm": "post_layernorm",
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "attn.qkv": "self_attn.{}_proj",
    "attn.proj": "self_attn.out_proj",
    "mlp": "mlp",
}
_HEAD = _POOL | {
    f"attn_pool.in_proj_{e}": f"head.attention.in_proj_{e}" for e in ("weight", "bias")
}
_PLACE: dict[str, Any] = {"layer": "encoder.layers", "prefix": "vision_model."}

COUNTERPARTS = (
    Counterpart(
        lambda model: _is_plain(model) and isinstance(model.norm_pre, nn.LayerNorm),
        "clip_vision_model",
        "CLIPVisionModelWithProjection",
        "CLIPVisionModel",
        _TOWER | {"head": "visual_projection"},
        _faults_of_clip,
        _clip_settings,
        _without_bias,
        has_labels=False,
        **_PLACE,
    ),
    Counterpart(
        lambda model: _is_plain(model) and model.global_pool == "map",
        "siglip_vision_model",
        "",
        "SiglipVisionModel",
        _TOWER | _HEAD,
        lambda model: _faults_of_siglip(model, norms=2),
        tower_settings,
        _attention_head,
        **_PLACE,
    ),
    Counterpart(
        lambda model: _is_plain(model) and is_mean_of_patches(model) and _is_of_siglip(model),
        "siglip",
        "SiglipForImageClassification",
        "",
        _TOWER | {"head": "classifier"},
        _faults_of_siglip,
        lambda model: {"vision_config": {**tower_settings(model), "vision_use_head": False}},
        _flat_positions,
        **_PLACE,
    ),
)
