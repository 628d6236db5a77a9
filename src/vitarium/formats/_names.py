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


def to_timm(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under timm's names; queries, keys and values as one. Unknown names stay."""
    named: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        short = _PREFIX.sub("", name)
        if _UNUSED.match(short):
            continue
        for pattern, timm_name in _TO_TIMM:
            short = re.sub(pattern, timm_name, short)
        named[short] = tensor
    _name_biases(named)
    for fused_name, parts in _FUSED.items():
        first = f".{parts[0]}."
        for name in [name for name in named if first in name]:
            names = [name.replace(first, f".{part}.") for part in parts]
            if all(part in named for part in names):
                fused = torch.cat([named.pop(part) for part in names])
                named[name.replace(first, f".{fused_name}.")] = fused
    return named


def _name_biases(named: dict[str, Tensor]) -> None:
    """Of attention whose keys have none, which timm does not fuse."""
    for name in [name for name in named if name.endswith(".attn.q.bias")]:
        if name.replace(".q.", ".k.") not in named:
            for part in ("q", "v"):
                if (bias := name.replace(".q.", f".{part}.")) in named:
                    named[bias.replace(f".{part}.bias", f".{part}_bias")] = named.pop(bias)


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
