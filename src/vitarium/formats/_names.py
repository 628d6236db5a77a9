"""What Hugging Face's transformers call the tensors of vision models, and what timm does."""

import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

# transformers 5 has modules under shorter names, and files under these or those.
_TO_TIMM: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
    (r"^embeddings\.(?:cls_token|class_embedding)$", "cls_token"),
    (r"^embeddings\.(?:position_embeddings|position_embedding\.weight)$", "pos_embed"),
    (r"^embeddings\.register_tokens$", "reg_token"),
    (r"^embeddings\.distillation_token$", "dist_token"),
    (r"^embeddings\.patch_embedding(?:s\.projection|s)?\.", "patch_embed.proj."),
    (r"^embeddings\.norm\.", "patch_embed.norm."),
    (r"^encoder\.layers\.(\d+)\.blocks\.", r"layers.\1.blocks."),
    # in timm a stage of Swin begins with what is the end of the one before in transformers
    (r"^encoder\.layers\.(\d+)\.downsample\.", lambda m: f"layers.{int(m[1]) + 1}.downsample."),
    (r"^(?:model\.|encoder\.)?layers?\.(\d+)\.(?!blocks|downsample)", r"blocks.\1."),
    (r"^encoder\.relative_position_bias\.|^shared_position_bias\.", "rel_pos_bias."),
    (r"\.(?:layernorm_before|layer_norm1)\.", ".norm1."),
    (r"\.(?:layernorm_after|layer_norm2)\.", ".norm2."),
    (r"\.(?:self_attn|attention\.attention|attention\.self|attention)\.(?!output)", ".attn."),
    (r"\.attn\.(?:relative_position_bias\.)+", ".attn."),
    (r"\.attn\.(?:query|q_proj)\.", ".attn.q."),
    (r"\.attn\.(?:key|k_proj)\.", ".attn.k."),
    (r"\.attn\.(?:value|v_proj)\.", ".attn.v."),
    (r"\.attention\.output\.dense\.|\.attn\.(?:o|out)_proj\.", ".attn.proj."),
    (r"\.layer_scale(\d)\.lambda1$", r".ls\1.gamma"),
    (r"\.lambda_(\d)$", r".gamma_\1"),
    (r"\.(?:intermediate\.dense|mlp\.weights_in)\.", ".mlp.fc1."),
    (r"\.(?:output\.dense|mlp\.weights_out|mlp\.down_proj)\.", ".mlp.fc2."),
    (r"\.mlp\.gate_proj\.", ".mlp.gate."),
    (r"\.mlp\.up_proj\.", ".mlp.up."),
    (r"^(?:layernorm|post_layernorm)\.", "norm."),
    (r"^pre_layrnorm\.", "norm_pre."),  # sic
    (r"^pooler\.layernorm\.", "fc_norm."),
    (r"^(?:classifier|visual_projection)\.", "head."),
]
_PREFIX = re.compile(
    r"^(?:vit|deit|dinov2|dinov2_with_registers|beit|data2vec_vision|swin|ijepa|vision_model)\."
)
_FUSED = {"attn.qkv": ("attn.q", "attn.k", "attn.v"), "mlp.fc1": ("mlp.gate", "mlp.up")}
_UNUSED = re.compile(
    r"pooler\.(?!layernorm)|embeddings\.mask_token$|decoder\.|mask_token$"
    r"|.*(?:relative_position_index|position_ids)$"
)
"""What a model of images has no use for, or what is computed."""

NAMES = {
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj": "embeddings.patch_embeddings.projection",
    "norm": "layernorm",
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.qkv": "attention.attention.{}",
    "attn.proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
    "head": "classifier",
}
"""What timm's ViT is made of -> what that of transformers is; {} for each of queries, keys and
values. Most families have these names, and files of all versions of transformers."""
_THIRDS = {"{}_proj": ("q", "k", "v"), "{}": ("query", "key", "value")}
_IN_A_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")
_IN_A_STAGE = re.compile(r"layers\.(\d+)\.(?:blocks\.(\d+)\.)?(.+)")


def to_timm(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under timm's names; queries, keys and values as one. Unknown names stay."""
    named: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if not _UNUSED.match(_PREFIX.sub("", name)):
            named[timm_name(name)] = tensor
    _name_biases(named)
    for fused_name, parts in _FUSED.items():
        first = f".{parts[0]}."
        for name in [name for name in named if first in name]:
            names = [name.replace(first, f".{part}.") for part in parts]
            if all(part in named for part in names):
                fused = torch.cat([named.pop(part) for part in names])
                named[name.replace(first, f".{fused_name}.")] = fused
    return named


def timm_name(name: str) -> str:
    """timm's of a tensor, but that queries, keys and values are apart: `blocks.0.attn.q.weight`."""
    short = _PREFIX.sub("", name)
    for pattern, replacement in _TO_TIMM:
        short = re.sub(pattern, replacement, short)
    return short


def _name_biases(named: dict[str, Tensor]) -> None:
    """Of attention whose keys have none, which timm does not fuse."""
    for name in [name for name in named if name.endswith(".attn.q.bias")]:
        if name.replace(".q.", ".k.") not in named:
            for part in ("q", "v"):
                if (bias := name.replace(".q.", f".{part}.")) in named:
                    named[bias.replace(f".{part}.bias", f".{part}_bias")] = named.pop(bias)


def from_timm(
    weights: Mapping[str, Tensor],
    names: Mapping[str, str],
    prefix: str,
    layer: str = "encoder.layer",
) -> dict[str, Tensor]:
    """The inverse for one family, whose parts have these names; all but heads with the prefix.

    Args:
        layer: what a block is called there, before its number.

    Raises KeyError for what has no name there.
    """
    renamed: dict[str, Tensor] = {}
    for timm_name, tensor in weights.items():
        place, part = _place(timm_name, layer)
        name = f"{place}{_renamed(part, names)}"
        name = name if part.startswith("head") else prefix + name
        if "{}" not in name:
            renamed[name] = tensor
            continue
        thirds = next(parts for pattern, parts in _THIRDS.items() if pattern in name)
        for third, chunk in zip(thirds, tensor.chunk(3), strict=True):
            renamed[name.format(third)] = chunk
    return renamed


def _place(name: str, layer: str) -> tuple[str, str]:
    """The layer in transformers, and the part of it."""
    if match := _IN_A_BLOCK.fullmatch(name):
        return f"{layer}.{match[1]}.", match[2]
    if match := _IN_A_STAGE.fullmatch(name):
        stage, block, part = match.groups()
        if block is None:  # the beginning of a stage is the end of the one before
            return f"encoder.layers.{int(stage) - 1}.", part
        return f"encoder.layers.{stage}.blocks.{block}.", part
    return "", name


def _renamed(part: str, names: Mapping[str, str]) -> str:
    """By the longest beginning that has a name."""
    words = part.split(".")
    for end in range(len(words), 0, -1):
        if name := names.get(".".join(words[:end])):
            return ".".join([name, *words[end:]])
    raise KeyError(part)
