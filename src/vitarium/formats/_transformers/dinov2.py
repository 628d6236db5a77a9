"""DINOv2, without registers and with them."""

from vitarium.core.registry import Section, choose
from vitarium.formats._foreign_json import Count, Epsilon, Ratio
from vitarium.formats._transformers.base import EncoderConfig, Family, NamedWeights


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
