"""ViT and what is built like it: DeiT, MAE's encoder, MSN, I-JEPA."""

from typing import Any

from vitarium.core.registry import Section, choose
from vitarium.formats._foreign_json import Epsilon
from vitarium.formats._transformers.base import (
    Family,
    MlpConfig,
    NamedWeights,
    layer_norm_eps,
    require,
)


class MsnConfig(MlpConfig):
    layer_norm_eps: Epsilon = 1e-6


def _arguments(config: MlpConfig) -> dict[str, Any]:
    return {
        **config.sizes(),
        **config.dropout(),
        "qkv_bias": config.qkv_bias,
        "mlp_ratio": config.mlp_ratio,
        "act_layer": config.act_layer,
    }


def _vit(config: MlpConfig, bare: bool) -> Section:
    return choose("architecture", "vit", norm_eps=config.layer_norm_eps, **_arguments(config))


def _deit(config: MlpConfig, bare: bool) -> Section:
    """A register with a position: what the distillation token is to the class token's head."""
    eps = config.layer_norm_eps
    return choose("architecture", "vit", norm_eps=eps, reg_tokens=1, **_arguments(config))


def _distilled(config: MlpConfig, bare: bool) -> Section:
    require(config, hidden_act="gelu")
    arguments = _arguments(config)
    del arguments["act_layer"]
    model = "deit_tiny_distilled_patch16_224"
    eps = layer_norm_eps(config.layer_norm_eps, 1e-6)
    return choose("architecture", "timm", model=model, **arguments, **eps)


def _mean_of_patches(config: MlpConfig, bare: bool) -> Section:
    arguments = _arguments(config) | layer_norm_eps(config.layer_norm_eps, 1e-6)
    pool = {"class_token": False, "global_pool": "avg", "fc_norm": False}
    return choose("architecture", "timm", model="vit_tiny_patch16_224", **arguments, **pool)


def _as_register(weights: NamedWeights) -> NamedWeights:
    return {name.replace("dist_token", "reg_token"): tensor for name, tensor in weights.items()}


def _two_heads(weights: NamedWeights) -> NamedWeights:
    heads = {"cls_classifier.": "head.", "distillation_classifier.": "head_dist."}
    for old, new in heads.items():
        weights = {name.replace(old, new): tensor for name, tensor in weights.items()}
    return weights


FAMILIES = {
    "ViTForImageClassification": Family(MlpConfig, _vit),
    "ViTModel": Family(MlpConfig, _vit, has_classifier=False),
    "ViTMAEModel": Family(MlpConfig, _vit, has_classifier=False),
    "ViTMAEForPreTraining": Family(MlpConfig, _vit, has_classifier=False),
    "ViTMSNForImageClassification": Family(MsnConfig, _vit),
    "ViTMSNModel": Family(MsnConfig, _vit, has_classifier=False),
    "DeiTForImageClassification": Family(MlpConfig, _deit, _as_register),
    "DeiTModel": Family(MlpConfig, _deit, _as_register, has_classifier=False),
    "DeiTForImageClassificationWithTeacher": Family(MlpConfig, _distilled, _two_heads),
    "IJepaForImageClassification": Family(MlpConfig, _mean_of_patches),
}
