"""The image towers of CLIP and SigLIP."""

from typing import Any

import torch

from vitarium.core.registry import Section, choose
from vitarium.formats._foreign_json import Epsilon, Rate, Size
from vitarium.formats._transformers.base import (
    Family,
    MlpConfig,
    NamedWeights,
    TransformersConfig,
    layer_norm_eps,
    require,
)


class ClipConfig(MlpConfig):
    hidden_act: str = "quick_gelu"
    layer_norm_eps: Epsilon = 1e-5
    attention_dropout: Rate = 0.0


class ProjectedClipConfig(ClipConfig):
    projection_dim: Size = 512

    @property
    def num_outputs(self) -> int:
        return self.projection_dim


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
    "head.probe": "attn_pool.latent",
    "head.attn.proj.": "attn_pool.proj.",
    "head.layernorm.": "attn_pool.norm.",
    "head.mlp.": "attn_pool.mlp.",
}


def _attention_pool(weights: NamedWeights) -> NamedWeights:
    converted: NamedWeights = {}
    for name, tensor in _positions(weights).items():
        if name.startswith("head.attn.in_proj_"):
            end, width = name.rpartition("_")[2], len(tensor) // 3
            converted[f"attn_pool.q.{end}"] = tensor[:width]
            converted[f"attn_pool.kv.{end}"] = tensor[width:]
            continue
        for old, new in _POOL.items():
            name = name.replace(old, new)
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
