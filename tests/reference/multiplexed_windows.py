"""What Mini-Swin has to equal: its untied copy, timm's Swin, and a block's formulas."""

import math
import re

import torch
from timm.models.swin_transformer import SwinTransformer
from torch.nn import functional as F

from vitarium import create_model
from vitarium.architectures.multiplexed._sharing import group_of

SMALL = {
    "img_size": 32,
    "patch_size": 2,
    "window_size": 4,
    "embed_dim": 8,
    "depths": (2, 4, 2),
    "num_heads": (2, 2, 4),
    "convolution": 3,
    "share": 2,
}


def made(num_classes=5, seed=0, **settings):
    """A small model in float64 whose every weight is random, so that each of them matters."""
    torch.manual_seed(seed)
    model = create_model("mini_swin", num_classes=num_classes, **{**SMALL, **settings}).double()
    for name, parameter in model.named_parameters():
        scale = re.search(r"norm\d?\.weight$", name)  # what it scales is not to fade away
        torch.nn.init.normal_(parameter, mean=1.0 if scale else 0.0, std=0.3)
    return model.eval()


def images(model, count=2, seed=1):
    drawn = torch.Generator().manual_seed(seed)
    size = (count, *model.config.input_size)
    return torch.randn(size, generator=drawn, dtype=torch.float64)


def per_block(model):
    """The state as of a model that shares nothing: `shared.0.x` once for each of its blocks."""
    state = {n: t for n, t in model.state_dict().items() if ".shared." not in n}
    for stage, depth in enumerate(model.config.depths):
        for block in range(depth):
            group = group_of(model.config.group_sizes[stage], block)
            prefix = f"layers.{stage}.shared.{group}."
            for name, tensor in model.state_dict().items():
                if name.startswith(prefix):
                    own = f"layers.{stage}.shared.{block}.{name.removeprefix(prefix)}"
                    state[own] = tensor.clone()
    return state


def untied(model):
    """The same model with weights of its own for each block."""
    settings = {**model.config.factors(), "share": 1}
    other = create_model("mini_swin", num_classes=model.num_classes, **settings).double()
    other.load_state_dict(per_block(model), strict=True)
    return other.eval()


def plain(model):
    """timm's Swin whose blocks have these weights; what mixes and convolves is left out."""
    config = model.config
    other = SwinTransformer(
        img_size=config.img_size,
        patch_size=config.patch_size,
        in_chans=config.in_chans,
        num_classes=model.num_classes,
        embed_dim=config.embed_dim,
        depths=config.depths,
        num_heads=config.num_heads,
        window_size=config.window_size,
        mlp_ratio=config.mlp_ratio,
        qkv_bias=config.qkv_bias,
        norm_layer=lambda dim, **more: torch.nn.LayerNorm(dim, eps=config.norm_eps, **more),
    ).double()
    state = {
        re.sub(r"\.shared\.", ".blocks.", name): tensor
        for name, tensor in per_block(model).items()
        if not re.search(r"\.(attn\.(before|after)|local)\.", name)
    }
    if not config.position_bias:
        tables = {n: t for n, t in other.state_dict().items() if n.endswith("bias_table")}
        state |= {name: torch.zeros_like(table) for name, table in tables.items()}
    other.load_state_dict(state, strict=True)
    return other.eval()


def block_by_formula(model, stage, block, maps, window, shift):
    """What a block makes of a map [rows, columns, dim], each pair of patches by itself.

    With head mixing, position bias and a convolution; rows and columns are multiples of the window.
    """
    state, heads = model.state_dict(), model.config.num_heads[stage]
    own = f"layers.{stage}.blocks.{block}."
    ours = f"layers.{stage}.shared.{group_of(model.config.group_sizes[stage], block)}."
    rows, columns, dim = maps.shape

    def linear(inputs, name):
        return inputs @ state[name + ".weight"].T + state[name + ".bias"]

    def normed(inputs, name):
        centered = inputs - inputs.mean(-1, keepdim=True)
        spread = centered.square().mean(-1, keepdim=True) + model.config.norm_eps
        return centered / spread.sqrt() * state[name + ".weight"] + state[name + ".bias"]

    def mixed(pairs, name):
        weight, bias = state[name + ".weight"], state[name + ".bias"]
        return torch.einsum("ab,bij->aij", weight, pairs) + bias[:, None, None]

    tokens = normed(maps, own + "norm1").reshape(rows * columns, dim)
    query, key, value = (
        part.reshape(-1, heads, dim // heads).transpose(0, 1)
        for part in linear(tokens, ours + "attn.qkv").chunk(3, 1)
    )
    table = state[ours + "attn.relative_position_bias_table"]
    count = rows * columns
    bias = torch.zeros(heads, count, count, dtype=maps.dtype)
    same_window = torch.zeros(count, count, dtype=torch.bool)
    neighbors = torch.zeros(count, count, dtype=torch.bool)
    for i in range(count):
        for j in range(count):
            # where they stand after the shift, and whether it took them round the edge
            (r, c), (s, d) = (
                ((p // columns - shift) % rows, (p % columns - shift) % columns) for p in (i, j)
            )
            if (r // window, c // window) != (s // window, d // window):
                continue
            same_window[i, j] = True
            round_the_edge = [(p // columns < shift, p % columns < shift) for p in (i, j)]
            neighbors[i, j] = round_the_edge[0] == round_the_edge[1]
            bias[:, i, j] = table[(r - s + window - 1) * (2 * window - 1) + c - d + window - 1]
    logits = query @ key.transpose(1, 2) / math.sqrt(dim // heads) + bias
    logits = mixed(logits, own + "attn.before").masked_fill(~neighbors, -math.inf)
    chances = mixed(logits.softmax(-1), own + "attn.after") * same_window
    found = (chances @ value).transpose(0, 1).reshape(count, dim)
    maps = maps + linear(found, ours + "attn.proj").reshape(maps.shape)

    inside = normed(maps, own + "local.norm")
    stream = inside if model.config.local_norm == "stream" else maps
    kernel = state[own + "local.convolution.weight"]
    half = kernel.shape[-1] // 2
    around = F.pad(inside, (0, 0, half, half, half, half))
    convolved = sum(
        around[down : down + rows, right : right + columns] * kernel[:, 0, down, right]
        for down in range(2 * half + 1)
        for right in range(2 * half + 1)
    )
    maps = stream + convolved + state[own + "local.convolution.bias"]

    hidden = F.gelu(linear(normed(maps, own + "norm2"), ours + "mlp.fc1"))
    return maps + linear(hidden, ours + "mlp.fc2")
