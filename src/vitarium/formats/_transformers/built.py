"""What a model that was built says of itself: the settings and faults that families share."""

from collections.abc import Iterator
from typing import Any

from timm.layers.attention import Attention
from timm.layers.mlp import Mlp
from timm.models.vision_transformer import Block
from torch import nn

_ACTIVATIONS = {
    "GELU": "gelu",
    "GELUTanh": "gelu_pytorch_tanh",
    "QuickGELU": "quick_gelu",
    "ReLU": "relu",
    "SiLU": "silu",
}


def head_of(model: Any) -> Any:
    """The last layer; Swin's is a part of its head."""
    return getattr(model.head, "fc", model.head)


def activation(model: Any) -> str | None:
    """`hidden_act`; None for one that has no name there."""
    act: Any = first_block(model).mlp.act
    if getattr(act, "approximate", "none") == "tanh":
        return "gelu_pytorch_tanh"
    return _ACTIVATIONS.get(type(act).__name__)


def first_block(model: Any) -> Any:
    return model.layers[0].blocks[0] if hasattr(model, "layers") else model.blocks[0]


def encoder_settings(model: Any) -> dict[str, Any]:
    """Of all vision transformers without stages."""
    block = model.blocks[0]
    return {
        "hidden_size": model.embed_dim,
        "num_hidden_layers": len(model.blocks),
        "num_attention_heads": block.attn.num_heads,
        "hidden_act": activation(model),
        "hidden_dropout_prob": block.attn.proj_drop.p,
        "attention_probs_dropout_prob": block.attn.attn_drop.p,
        "layer_norm_eps": block.norm1.eps,
        **image_settings(model),
        "qkv_bias": block.attn.qkv.bias is not None,
    }


def image_settings(model: Any) -> dict[str, Any]:
    """Sides of squares, else heights and widths."""
    image, patch = (
        size[0] if len(set(size)) == 1 else list(size)
        for size in (model.patch_embed.img_size, model.patch_embed.patch_size)
    )
    channels = model.patch_embed.proj.in_channels
    return {"image_size": image, "patch_size": patch, "num_channels": channels}


def drop_path_rate(block: Any) -> float:
    """Of the last block, whose rate is the model's. It was computed in 32 bits: 0.1 is
    0.10000000149."""
    return float(f"{getattr(block.drop_path1, 'drop_prob', 0.0):.7g}")


def layer_faults(model: Any, count: int, *mlps: type) -> Iterator[str]:
    """Of a head that is no layer, MLPs of a kind that is none of these, and of norms that are not
    LayerNorms, so many, with one epsilon."""
    if not isinstance(head_of(model), nn.Linear | nn.Identity):
        yield "its head has several layers, and there is one"
    used = {type(part) for name, part in model.named_modules() if name.endswith(".mlp")}
    if not used <= set(mlps or (Mlp,)):
        yield f"its MLPs are of {', '.join(sorted(kind.__name__ for kind in used))}"
    elif activation(model) is None:
        yield f"its activation is {type(first_block(model).mlp.act).__name__}"
    norms = [part for part in model.modules() if isinstance(part, nn.LayerNorm)]
    if len(norms) != count or len({norm.eps for norm in norms}) != 1:
        yield "its norms are not those of its family there"


def plain_faults(model: Any, mlp: type, prefix_tokens: int) -> Iterator[str]:
    """Of what is built like timm's ViT, with so many positions beside those of patches."""
    if model.global_pool != "token" or not isinstance(model.fc_norm, nn.Identity):
        yield f"its head sees global_pool '{model.global_pool}', and there the class token alone"
    yield from block_faults(model, mlp, prefix_tokens)


def block_faults(model: Any, mlp: type, prefix_tokens: int, norms: int = 1) -> Iterator[str]:
    """The same whatever the head sees, with so many norms that are in no block."""
    positions = model.patch_embed.num_patches + prefix_tokens
    if model.pos_embed is None or model.pos_embed.shape[1] != positions:
        yield "its class token has no position, and there it has one"
    for block in model.blocks:
        if (type(block), type(block.attn)) != (Block, Attention):
            yield f"its blocks are of {type(block).__name__}, {type(block.attn).__name__}"
    yield from layer_faults(model, 2 * len(model.blocks) + norms, mlp)


def is_mean_of_patches(model: Any) -> bool:
    """Whether the head of a ViT without class token sees the mean patch after the last norm."""
    mean = model.global_pool == "avg" and isinstance(model.fc_norm, nn.Identity)
    return mean and model.num_prefix_tokens == 0


def tower_settings(model: Any) -> dict[str, Any]:
    """Of models whose only dropout is in the attention."""
    block = model.blocks[0]
    return {
        "hidden_size": model.embed_dim,
        "num_hidden_layers": len(model.blocks),
        "num_attention_heads": block.attn.num_heads,
        "intermediate_size": block.mlp.fc2.in_features,
        "hidden_act": activation(model),
        "attention_dropout": block.attn.attn_drop.p,
        "layer_norm_eps": block.norm1.eps,
        **image_settings(model),
    }
