"""What a plain vision transformer is made of, in the words of `mini_deit`'s factors."""

from collections.abc import Iterable, Iterator
from typing import Any, get_args

from timm.layers.attention import Attention
from timm.layers.create_act import get_act_layer
from timm.layers.mlp import Mlp
from timm.layers.norm import LayerNorm
from timm.layers.patch_embed import PatchEmbed
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn

from vitarium.architectures.vit.dinov2 import ratio
from vitarium.architectures.vit.vit import Vit
from vitarium.core.errors import IncompatibleWeights

_NORMS = (nn.LayerNorm, LayerNorm)
_ACTIVATIONS = get_args(Vit.model_fields["act_layer"].annotation)


def plain_factors(model: nn.Module) -> dict[str, Any]:
    """Factors with which `mini_deit` has the sizes, tokens, norms and rates of a model.

    Args:
        model: timm's VisionTransformer of plain blocks; without memory (meta device) will do.

    Raises IncompatibleWeights that names what a multiplexed version cannot have.
    """
    if type(model) is not VisionTransformer:
        raise IncompatibleWeights(f"{_WHOSE} a {type(model).__name__}; {_PLAIN}")
    refuse(_extras(model))
    embedding: Any = model.patch_embed
    block: Any = model.blocks[0]
    attention = block.attn
    last: Any = model.blocks[-1]
    return {
        "img_size": embedding.img_size[0],
        "patch_size": embedding.patch_size[0],
        "in_chans": embedding.proj.in_channels,
        "embed_dim": model.embed_dim,
        "depth": len(model.blocks),
        "num_heads": attention.num_heads,
        "mlp_ratio": ratio(block.mlp.fc1.out_features, model.embed_dim),
        "qkv_bias": attention.qkv.bias is not None,
        "class_token": model.cls_token is not None,
        "reg_tokens": model.num_reg_tokens,
        "global_pool": model.global_pool,
        "fc_norm": isinstance(model.fc_norm, nn.LayerNorm),
        "init_values": getattr(block.ls1, "init_values", None),
        "norm_eps": block.norm1.eps,
        "act_layer": _activation(block.mlp.act),
        "drop_rate": model.head_drop.p,
        "pos_drop_rate": model.pos_drop.p,
        "proj_drop_rate": attention.proj_drop.p,
        "attn_drop_rate": attention.attn_drop.p,
        # timm computes the blocks' rates in float32
        "drop_path_rate": round(getattr(last.drop_path1, "drop_prob", 0.0), 6),
    }


_WHOSE = "there is no multiplexed version of"
_PLAIN = "name a plain vision transformer or a Swin"


def refuse(extras: Iterable[str]) -> None:
    """Raises IncompatibleWeights for anything that a multiplexed version cannot have."""
    if reasons := list(dict.fromkeys(extras)):
        raise IncompatibleWeights(f"{_WHOSE} a model with {', '.join(reasons)}; {_PLAIN}")


def of_norms(norms: Iterable[Any]) -> Iterator[str]:
    """What norms have that plain ones, of one norm_eps, have not."""
    norms = list(norms)
    plain = all(type(norm) in _NORMS and norm.elementwise_affine for norm in norms)
    yield from when(not plain or any(norm.bias is None for norm in norms), "norms of another kind")
    yield from when(plain and len({norm.eps for norm in norms}) > 1, "norms of several norm_eps")


def when(has: bool, what: str) -> Iterator[str]:
    if has:
        yield what


def _extras(model: VisionTransformer) -> Iterator[str]:
    """What the model has, by timm's words, and `mini_deit` has not."""
    embedding: Any = model.patch_embed
    if type(embedding) is not PatchEmbed:
        yield f"the patch embedding {type(embedding).__name__}"
        return
    yield from when(not _nothing(embedding.norm), "embed_norm_layer")
    yield from when(len({*embedding.img_size}) > 1, f"img_size {embedding.img_size}")
    yield from when(len({*embedding.patch_size}) > 1, f"patch_size {embedding.patch_size}")
    yield from when(embedding.proj.bias is None, "a patch embedding without bias")
    yield from when(model.pos_embed is None, "pos_embed 'none'")
    yield from when(model.no_embed_class, "no_embed_class")
    yield from when(model.dynamic_img_size, "dynamic_img_size")
    yield from when(not _nothing(model.norm_pre), "pre_norm")
    yield from when(not _nothing(model.patch_drop), "patch_drop_rate")
    yield from when(model.global_pool not in ("token", "avg"), f"global_pool '{model.global_pool}'")
    yield from when(model.pool_include_prefix, "pool_include_prefix")
    finals = [norm for norm in (model.norm, model.fc_norm) if not _nothing(norm)]
    yield from when(len(finals) != 1, f"{len(finals)} norms at its end")
    for block in model.blocks:
        yield from _of_block(block)
    blocks = [block for block in model.blocks if type(block) is Block]
    norms = [part for block in blocks for part in (block.norm1, block.norm2)] + finals
    yield from of_norms(norms)


def _of_block(block: Any) -> Iterator[str]:
    if type(block) is not Block or type(block.attn) is not Attention:
        kind = type(getattr(block, "attn", None)).__name__
        yield f"blocks of {type(block).__name__} and {kind}"
        return
    attention, mlp = block.attn, block.mlp
    yield from when(not _nothing(attention.q_norm), "qk_norm")
    yield from when(not _nothing(attention.norm), "scale_attn_norm")
    yield from when(attention.proj.bias is None, "proj_bias False")
    if type(mlp) is not Mlp:
        yield f"MLPs of {type(mlp).__name__}"
        return
    yield from when(not _nothing(mlp.norm), "scale_mlp_norm")
    yield from when(_activation(mlp.act) is None, f"act_layer {type(mlp.act).__name__}")


def _nothing(part: nn.Module) -> bool:
    return isinstance(part, nn.Identity)


def _activation(act: nn.Module) -> str | None:
    """What `act_layer` is called, if `mini_deit` has it."""
    if isinstance(act, nn.GELU):  # timm's default; its "gelu" is a class of its own
        return {"none": "gelu", "tanh": "gelu_tanh"}[act.approximate]
    return next((name for name in _ACTIVATIONS if type(act) is get_act_layer(name)), None)
