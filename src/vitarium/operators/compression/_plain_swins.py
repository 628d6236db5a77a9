"""What a Swin transformer is made of, in the words of `mini_swin`'s factors."""

from collections.abc import Iterator
from itertools import chain
from typing import Any

from timm.layers.patch_embed import PatchEmbed
from timm.models.swin_transformer import SwinTransformer

from vitarium.architectures.multiplexed._windows import fitting_window
from vitarium.operators.compression._plain_vits import of_norms, refuse, when


def swin_factors(model: SwinTransformer) -> dict[str, Any]:
    """Factors with which `mini_swin` has the sizes, windows, norms and rates of a model.

    Args:
        model: timm's; without memory (meta device) will do.

    Raises IncompatibleWeights that names what a multiplexed version cannot have.
    """
    refuse(_extras(model))
    embedding: Any = model.patch_embed
    firsts: list[Any] = [stage.blocks[0] for stage in _stages(model)]
    block, attention = firsts[0], firsts[0].attn
    last: Any = _stages(model)[-1].blocks[-1]
    head: Any = model.head
    return {
        "img_size": embedding.img_size[0],
        "patch_size": embedding.patch_size[0],
        "in_chans": embedding.proj.in_channels,
        "embed_dim": block.dim,
        "depths": tuple(len(stage.blocks) for stage in _stages(model)),
        "num_heads": tuple(first.attn.num_heads for first in firsts),
        "window_size": _largest_window(model),
        "mlp_ratio": block.mlp_ratio,
        "qkv_bias": attention.qkv.bias is not None,
        "norm_eps": block.norm1.eps,
        "drop_rate": head.drop.p,
        "proj_drop_rate": attention.proj_drop.p,
        "attn_drop_rate": attention.attn_drop.p,
        # timm computes the blocks' rates in float32
        "drop_path_rate": round(getattr(last.drop_path1, "drop_prob", 0.0), 6),
    }


def _extras(model: SwinTransformer) -> Iterator[str]:
    """What the model has, by timm's words, and `mini_swin` has not."""
    embedding: Any = model.patch_embed
    if type(embedding) is not PatchEmbed:
        yield f"the patch embedding {type(embedding).__name__}"
        return
    yield from when(len({*embedding.img_size}) > 1, f"img_size {embedding.img_size}")
    yield from when(len({*embedding.patch_size}) > 1, f"patch_size {embedding.patch_size}")
    size, patch = embedding.img_size[0], embedding.patch_size[0]
    yield from when(size % patch > 0, f"img_size {size} that patch_size {patch} does not divide")
    yield from when(model.dynamic_img_size, "dynamic_img_size")
    yield from when(model.global_pool != "avg", f"global_pool '{model.global_pool}'")
    if not all(len(stage.blocks) for stage in _stages(model)):
        yield "a stage without blocks"
        return
    blocks = _blocks(model)
    yield from when(any(block.always_partition for block in blocks), "always_partition")
    heads = {block.attn.qkv.out_features == 3 * block.dim for block in blocks}
    yield from when(heads != {True}, "head_dim")
    yield from when(len({block.mlp_ratio for block in blocks}) > 1, "a mlp_ratio for each stage")
    largest = (_largest_window(model),) * 2
    fitting = [fitting_window(block.input_resolution, largest) for block in blocks]
    windows = [block.window_size for block in blocks]
    yield from when(windows != fitting, f"window_size {list(dict.fromkeys(windows))}")
    norms = [embedding.norm, model.norm]
    norms += [part for block in blocks for part in (block.norm1, block.norm2)]
    norms += [stage.downsample.norm for stage in _stages(model)[1:]]
    yield from of_norms(norms)


def _stages(model: SwinTransformer) -> list[Any]:
    return list(model.layers)


def _blocks(model: SwinTransformer) -> list[Any]:
    return list(chain.from_iterable(stage.blocks for stage in _stages(model)))


def _largest_window(model: SwinTransformer) -> int:
    """Of all stages; those of small maps are cut to them."""
    return max(chain.from_iterable(block.window_size for block in _blocks(model)))
