"""DINOv2, without registers and with them."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
from timm.layers.layer_scale import LayerScale
from timm.layers.mlp import GluMlp, Mlp
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from vitarium.architectures.vit.dinov2 import ClassAndPatches, ratio
from vitarium.core.registry import Section, choose
from vitarium.formats._foreign_json import Count, Epsilon, Ratio
from vitarium.formats._names import NAMES
from vitarium.formats._transformers.base import Counterpart, EncoderConfig, Family, NamedWeights
from vitarium.formats._transformers.built import activation, encoder_settings, plain_faults


class Dinov2Config(EncoderConfig):
    layer_norm_eps: Epsilon = 1e-6
    mlp_ratio: Ratio = 4.0
    layerscale_value: float = 1.0
    use_swiglu_ffn: bool = False
    num_register_tokens: Count = 0


class RegistersConfig(Dinov2Config):
    num_register_tokens: Count = 4


def _dinov2(config: Dinov2Config, bare: bool) -> Section:
    registers = config.num_register_tokens
    return choose(
        "architecture",
        "dinov2",
        **config.sizes(),
        **config.dropout(),
        qkv_bias=config.qkv_bias,
        act_layer=config.act_layer,
        mlp_ratio=float(config.mlp_ratio),
        norm_eps=config.layer_norm_eps,
        init_values=config.layerscale_value,
        swiglu=config.use_swiglu_ffn,
        patch_mean=not bare,
        **({"reg_tokens": registers, "no_embed_class": True} if registers else {}),
    )


def _position_in_class_token(weights: NamedWeights) -> NamedWeights:
    """As timm has it: patches alone have positions, and the class token's is added to itself."""
    if not weights["reg_token"].numel():
        return {name: tensor for name, tensor in weights.items() if name != "reg_token"}
    positions = weights["pos_embed"]
    moved = {"cls_token": weights["cls_token"] + positions[:, :1], "pos_embed": positions[:, 1:]}
    return {**weights, **moved}


FAMILIES = {
    "Dinov2ForImageClassification": Family(Dinov2Config, _dinov2),
    "Dinov2Model": Family(Dinov2Config, _dinov2, has_classifier=False),
    "Dinov2WithRegistersForImageClassification": Family(
        RegistersConfig, _dinov2, _position_in_class_token
    ),
    "Dinov2WithRegistersModel": Family(
        RegistersConfig, _dinov2, _position_in_class_token, has_classifier=False
    ),
}


def _fits(model: Any) -> bool:
    scaled = type(model) is VisionTransformer and isinstance(model.blocks[0].ls1, LayerScale)
    return scaled or isinstance(model, ClassAndPatches)


def _faults(model: Any) -> Iterator[str]:
    mlp, registers = GluMlp if _is_gated(model) else Mlp, model.num_reg_tokens
    if registers and not model.no_embed_class:
        yield "its registers have positions, and there they have none"
    yield from plain_faults(model, mlp, 0 if registers else 1)
    if type(model) is VisionTransformer and not isinstance(model.head, nn.Identity):
        yield "its head sees the class token alone, and there the mean patch beside it"
    if _is_gated(model) and (model.blocks[0].mlp.gate_last or activation(model) != "silu"):
        yield "its gated MLPs are no SwiGLU whose gate comes first"
    if _is_gated(model) and _gated_width(model.embed_dim, _mlp_ratio(model)) != _width(model):
        yield f"its gated MLPs are {_width(model)} wide, and there it is a multiple of 8"


def _is_gated(model: Any) -> bool:
    return isinstance(model.blocks[0].mlp, GluMlp)


def _width(model: Any) -> int:
    width: int = model.blocks[0].mlp.fc2.in_features
    return width


def _gated_width(embed_dim: int, mlp_ratio: float) -> int:
    return (int(int(embed_dim * mlp_ratio) * 2 / 3) + 7) // 8 * 8


def _mlp_ratio(model: Any) -> float:
    """Of gated MLPs, the whole number that gives their width, where there is one."""
    width, embed_dim = _width(model), model.embed_dim
    if not _is_gated(model):
        return ratio(width, embed_dim)
    exact = 1.5 * width / embed_dim
    near = float(round(exact))
    return near if _gated_width(embed_dim, near) == width else exact


def _settings(model: Any) -> dict[str, Any]:
    share = _mlp_ratio(model)
    return {
        **encoder_settings(model),
        "hidden_act": "gelu" if _is_gated(model) else activation(model),
        "mlp_ratio": int(share) if share.is_integer() else share,
        "layerscale_value": model.blocks[0].ls1.init_values,
        "use_swiglu_ffn": _is_gated(model),
        **({"num_register_tokens": model.num_reg_tokens} if model.num_reg_tokens else {}),
    }


def _position_of_class_token(weights: NamedWeights) -> NamedWeights:
    """There it has one, which is added to it: 0. The mask token serves training alone."""
    positions, token = weights["pos_embed"], weights["cls_token"]
    unused = {"mask_token": torch.zeros_like(token[0])}
    if "reg_token" not in weights:
        return weights | unused
    return weights | unused | {"pos_embed": torch.cat([torch.zeros_like(token), positions], dim=1)}


_NAMES = NAMES | {
    "reg_token": "embeddings.register_tokens",
    "mask_token": "embeddings.mask_token",
    "norm1": "norm1",
    "norm2": "norm2",
    "ls1.gamma": "layer_scale1.lambda1",
    "ls2.gamma": "layer_scale2.lambda1",
}
_PLAIN = {"mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}
_GATED = {"mlp.fc1": "mlp.weights_in", "mlp.fc2": "mlp.weights_out"}


def _counterpart(registers: bool, gated: bool) -> Counterpart:
    class_name = "Dinov2WithRegisters" if registers else "Dinov2"
    return Counterpart(
        lambda model: (
            _fits(model) and bool(model.num_reg_tokens) == registers and _is_gated(model) == gated
        ),
        "dinov2_with_registers" if registers else "dinov2",
        f"{class_name}ForImageClassification",
        f"{class_name}Model",
        _NAMES | (_GATED if gated else _PLAIN),
        _faults,
        _settings,
        _position_of_class_token,
    )


COUNTERPARTS = tuple(_counterpart(*which) for which in product((False, True), repeat=2))
