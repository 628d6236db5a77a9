"""What a plain ViT or a Swin is made of, in the factors of its multiplexed version."""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, get_args

from timm.layers.attention import Attention
from timm.layers.create_act import get_act_layer
from timm.layers.mlp import Mlp
from timm.layers.norm import LayerNorm
from timm.layers.patch_embed import PatchEmbed
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn

from vitarium.architectures.multiplexed._windows import fitting_window
from vitarium.architectures.vit.dinov2 import ratio
from vitarium.architectures.vit.vit import PlainVit, Vit
from vitarium.core.config import InvalidConfig
from vitarium.core.devices import meta_device
from vitarium.core.errors import IncompatibleWeights
from vitarium.core.registry import Section, choose

_NORMS = (nn.LayerNorm, LayerNorm)
_ACTIVATIONS = get_args(Vit.model_fields["act_layer"].annotation)
_PLAIN = "name a plain vision transformer or a Swin"


def plain_factors(
    model: nn.Module, form: str = "multiplexed version", names: str = _PLAIN
) -> dict[str, Any]:
    """Factors with which `mini_deit` has the sizes, tokens, norms and rates of a timm model.

    Raises IncompatibleWeights that names what a multiplexed version cannot have, or another `form`
    of the model, and what to name instead (`names`).
    """
    refusal = f"there is no {form} of {{}}; {names}"
    if type(model) is not VisionTransformer:
        raise IncompatibleWeights(refusal.format(f"a {type(model).__name__}"))
    _refuse(model.patch_embed, _vit_extras(model), refusal)
    block: Any = model.blocks[0]
    return {
        **_common_factors(model, block, model.blocks[-1]),
        "embed_dim": model.embed_dim,
        "depth": len(model.blocks),
        "num_heads": block.attn.num_heads,
        "mlp_ratio": ratio(block.mlp.fc1.out_features, model.embed_dim),
        "class_token": model.cls_token is not None,
        "reg_tokens": model.num_reg_tokens,
        "global_pool": model.global_pool,
        "fc_norm": isinstance(model.fc_norm, nn.LayerNorm),
        "init_values": getattr(block.ls1, "init_values", None),
        "act_layer": _activation(block.mlp.act),
        "drop_rate": model.head_drop.p,
        "pos_drop_rate": model.pos_drop.p,
    }


def vit_section(architecture: Section | None, purpose: str) -> Section:
    """A model's architecture as a `vit`: itself, or that of a plain ViT of timm.

    purpose: what needs it, for the error. Raises IncompatibleWeights for anything else.
    """
    if architecture is None:
        raise IncompatibleWeights(f"{purpose} needs a plain vit, not an unknown architecture")
    if type(architecture.config) is PlainVit:
        return architecture
    refusal = f"{purpose} needs a plain vit, not {architecture.name}"
    with meta_device():
        model = architecture(1)
    try:
        factors = plain_factors(model)
        shared = {name: factors[name] for name in PlainVit.model_fields if name in factors}
        section = choose("architecture", "vit", **shared)
    except (IncompatibleWeights, InvalidConfig):
        raise IncompatibleWeights(refusal) from None
    with meta_device():
        same = _shapes(section(1)) == _shapes(model)
    if not same:
        raise IncompatibleWeights(refusal)
    return section


def _shapes(model: nn.Module) -> dict[str, Any]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def swin_factors(model: SwinTransformer) -> dict[str, Any]:
    """Factors with which `mini_swin` has the sizes, windows, norms and rates of a timm model.

    Raises IncompatibleWeights that names what a multiplexed version cannot have.
    """
    refusal = f"there is no multiplexed version of {{}}; {_PLAIN}"
    _refuse(model.patch_embed, _swin_extras(model), refusal)
    stages: list[Any] = list(model.layers)
    firsts = [stage.blocks[0] for stage in stages]
    head: Any = model.head
    return {
        **_common_factors(model, firsts[0], stages[-1].blocks[-1]),
        "embed_dim": firsts[0].dim,
        "depths": tuple(len(stage.blocks) for stage in stages),
        "num_heads": tuple(first.attn.num_heads for first in firsts),
        "window_size": _largest_window(stages),
        "mlp_ratio": firsts[0].mlp_ratio,
        "drop_rate": head.drop.p,
    }


def _common_factors(model: Any, first: Any, last: Any) -> dict[str, Any]:
    """Of a model, by its first block and its last."""
    return {
        "img_size": model.patch_embed.img_size[0],
        "patch_size": model.patch_embed.patch_size[0],
        "in_chans": model.patch_embed.proj.in_channels,
        "qkv_bias": first.attn.qkv.bias is not None,
        "norm_eps": first.norm1.eps,
        "proj_drop_rate": first.attn.proj_drop.p,
        "attn_drop_rate": first.attn.attn_drop.p,
        # timm computes the blocks' rates in float32
        "drop_path_rate": round(getattr(last.drop_path1, "drop_prob", 0.0), 6),
    }


def _refuse(embedding: nn.Module, extras: Iterable[str], refusal: str) -> None:
    """Raises IncompatibleWeights for anything that the other form cannot have."""
    if type(embedding) is not PatchEmbed:
        extras = [f"the patch embedding {type(embedding).__name__}"]
    if reasons := list(dict.fromkeys(extras)):
        raise IncompatibleWeights(refusal.format(f"a model with {', '.join(reasons)}"))


def _having(*extras: tuple[bool, str]) -> list[str]:
    return [what for has, what in extras if has]


def _vit_extras(model: VisionTransformer) -> Iterator[str]:
    """What the model has, by timm's words, and `mini_deit` has not."""
    embedding: Any = model.patch_embed
    finals = [norm for norm in (model.norm, model.fc_norm) if not _nothing(norm)]
    yield from _having(
        (not _nothing(embedding.norm), "embed_norm_layer"),
        (len({*embedding.img_size}) > 1, f"img_size {embedding.img_size}"),
        (len({*embedding.patch_size}) > 1, f"patch_size {embedding.patch_size}"),
        (embedding.proj.bias is None, "a patch embedding without bias"),
        (model.pos_embed is None, "pos_embed 'none'"),
        (model.no_embed_class, "no_embed_class"),
        (model.dynamic_img_size, "dynamic_img_size"),
        (not _nothing(model.norm_pre), "pre_norm"),
        (not _nothing(model.patch_drop), "patch_drop_rate"),
        (model.global_pool not in ("token", "avg"), f"global_pool '{model.global_pool}'"),
        (model.pool_include_prefix, "pool_include_prefix"),
        (len(finals) != 1, f"{len(finals)} norms at its end"),
    )
    blocks: list[Any] = list(model.blocks)
    for block in blocks:
        if type(block) is not Block or type(block.attn) is not Attention:
            kind = type(getattr(block, "attn", None)).__name__
            yield f"blocks of {type(block).__name__} and {kind}"
            continue
        attention, mlp = block.attn, block.mlp
        yield from _having(
            (not _nothing(attention.q_norm), "qk_norm"),
            (not _nothing(attention.norm), "scale_attn_norm"),
            (attention.proj.bias is None, "proj_bias False"),
            (attention.qkv.out_features != 3 * model.embed_dim, "head_dim"),
        )
        if type(mlp) is not Mlp:
            yield f"MLPs of {type(mlp).__name__}"
            continue
        yield from _having(
            (not _nothing(mlp.norm), "scale_mlp_norm"),
            (_activation(mlp.act) is None, f"act_layer {type(mlp.act).__name__}"),
        )
    plain = [block for block in blocks if type(block) is Block]
    mlps = [block.mlp for block in plain if type(block.mlp) is Mlp]
    if len({mlp.fc1.out_features for mlp in mlps}) > 1:
        yield "MLPs of several widths"
    yield from _norm_extras([part for b in plain for part in (b.norm1, b.norm2)] + finals)


def _swin_extras(model: SwinTransformer) -> Iterator[str]:
    """What the model has, by timm's words, and `mini_swin` has not."""
    embedding: Any = model.patch_embed
    size, patch = embedding.img_size[0], embedding.patch_size[0]
    yield from _having(
        (len({*embedding.img_size}) > 1, f"img_size {embedding.img_size}"),
        (len({*embedding.patch_size}) > 1, f"patch_size {embedding.patch_size}"),
        (size % patch > 0, f"img_size {size} that patch_size {patch} does not divide"),
        (model.dynamic_img_size, "dynamic_img_size"),
        (model.global_pool != "avg", f"global_pool '{model.global_pool}'"),
    )
    stages: list[Any] = list(model.layers)
    if not all(len(stage.blocks) for stage in stages):
        yield "a stage without blocks"
        return
    blocks = list(chain.from_iterable(stage.blocks for stage in stages))
    windows, largest = [block.window_size for block in blocks], (_largest_window(stages),) * 2
    fitting = [fitting_window(block.input_resolution, largest) for block in blocks]
    yield from _having(
        (any(block.always_partition for block in blocks), "always_partition"),
        (any(block.attn.qkv.out_features != 3 * block.dim for block in blocks), "head_dim"),
        (len({block.mlp_ratio for block in blocks}) > 1, "a mlp_ratio for each stage"),
        (windows != fitting, f"window_size {list(dict.fromkeys(windows))}"),
    )
    norms = [embedding.norm, model.norm, *(stage.downsample.norm for stage in stages[1:])]
    yield from _norm_extras(norms + [part for b in blocks for part in (b.norm1, b.norm2)])


def _norm_extras(norms: list[Any]) -> list[str]:
    """What norms have that plain ones, of one norm_eps, have not."""
    plain = all(type(norm) in _NORMS and norm.elementwise_affine for norm in norms)
    return _having(
        (not plain or any(norm.bias is None for norm in norms), "norms of another kind"),
        (plain and len({norm.eps for norm in norms}) > 1, "norms of several norm_eps"),
    )


def _largest_window(stages: list[Any]) -> int:
    """Of all stages; those of small maps are cut to them."""
    blocks = chain.from_iterable(stage.blocks for stage in stages)
    return max(chain.from_iterable(block.window_size for block in blocks))


def _nothing(part: nn.Module) -> bool:
    return isinstance(part, nn.Identity)


def _activation(act: nn.Module) -> str | None:
    """What `act_layer` is called, if `mini_deit` has it."""
    if isinstance(act, nn.GELU):  # timm's default; its "gelu" is a class of its own
        return {"none": "gelu", "tanh": "gelu_tanh"}[act.approximate]
    return next((name for name in _ACTIVATIONS if type(act) is get_act_layer(name)), None)
