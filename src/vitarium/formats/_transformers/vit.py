"""ViT and what is built like it: DeiT, MAE's encoder, MSN, I-JEPA."""

from collections.abc import Iterator
from typing import Any

from timm.layers.mlp import Mlp
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer

from vitarium.core.registry import Section, choose
from vitarium.formats._foreign_json import Epsilon
from vitarium.formats._names import NAMES
from vitarium.formats._transformers.base import (
    Counterpart,
    Family,
    MlpConfig,
    NamedWeights,
    layer_norm_eps,
    require,
)
from vitarium.formats._transformers.built import (
    block_faults,
    encoder_settings,
    is_mean_of_patches,
    plain_faults,
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


def _faults(model: Any) -> Iterator[str]:
    return plain_faults(model, Mlp, model.num_prefix_tokens)


def _mean_faults(model: Any) -> Iterator[str]:
    return block_faults(model, Mlp, 0)


def _settings(model: Any) -> dict[str, Any]:
    width = model.blocks[0].mlp.fc1.out_features
    return {**encoder_settings(model), "intermediate_size": width}


def _has_register(model: Any) -> bool:
    """A single one, with a position."""
    return model.num_reg_tokens == 1 and not model.no_embed_class


def _as_distillation_token(weights: NamedWeights) -> NamedWeights:
    return {name.replace("reg_token", "dist_token"): tensor for name, tensor in weights.items()}


_DEIT = {**NAMES, "dist_token": "embeddings.distillation_token"}
_TWO_HEADS = {"head": "cls_classifier", "head_dist": "distillation_classifier"}

COUNTERPARTS = (
    Counterpart(
        lambda model: isinstance(model, VisionTransformerDistilled),
        "deit",
        "DeiTForImageClassificationWithTeacher",
        "DeiTModel",
        _DEIT | _TWO_HEADS,
        _faults,
        _settings,
    ),
    Counterpart(
        lambda model: type(model) is VisionTransformer and is_mean_of_patches(model),
        "ijepa",
        "IJepaForImageClassification",
        "",
        NAMES,
        _mean_faults,
        _settings,
    ),
    Counterpart(
        lambda model: type(model) is VisionTransformer and _has_register(model),
        "deit",
        "DeiTForImageClassification",
        "DeiTModel",
        _DEIT,
        _faults,
        _settings,
        _as_distillation_token,
    ),
    Counterpart(
        lambda model: type(model) is VisionTransformer,
        "vit",
        "ViTForImageClassification",
        "ViTModel",
        NAMES,
        _faults,
        _settings,
    ),
)
