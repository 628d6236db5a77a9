"""What a multiplexed model has to equal: its untied copy, timm's plain model, and its formulas."""

import math
import re

import torch
from timm.models.vision_transformer import VisionTransformer
from torch.nn import functional as F

from vitarium import create_model
from vitarium.architectures.multiplexed._sharing import group_of

SMALL = {"img_size": 32, "patch_size": 4, "embed_dim": 24, "depth": 4, "num_heads": 3}
PLAIN = {"mix_before": False, "mix_after": False, "relative_positions": None}


def made(num_classes=10, seed=0, **settings):
    """A small model in float64 whose every weight is random, so that each of them matters."""
    torch.manual_seed(seed)
    model = create_model("mini_deit", num_classes=num_classes, **{**SMALL, **settings}).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def images(model, count=2, seed=1):
    drawn = torch.Generator().manual_seed(seed)
    size = (count, *model.config.input_size)
    return torch.randn(size, generator=drawn, dtype=torch.float64)


def per_block(model):
    """The state as of a model that shares nothing: `shared.0.x` once for each of its blocks."""
    state = {n: t for n, t in model.state_dict().items() if not n.startswith("shared.")}
    for block in range(len(model.blocks)):
        prefix = f"shared.{group_of(model.group_sizes, block)}."
        for name, tensor in model.state_dict().items():
            if name.startswith(prefix):
                state[f"shared.{block}.{name.removeprefix(prefix)}"] = tensor.clone()
    return state


def untied(model):
    """The same model with weights of its own for each block."""
    settings = {**model.config.factors(), "share": 1}
    other = create_model("mini_deit", num_classes=model.num_classes, **settings).double()
    other.load_state_dict(per_block(model), strict=True)
    return other.eval()


def plain(model):
    """timm's model whose blocks have these weights; what mixes and moves is left out."""
    config = model.config
    other = VisionTransformer(
        img_size=config.img_size,
        patch_size=config.patch_size,
        in_chans=config.in_chans,
        num_classes=model.num_classes,
        global_pool=config.global_pool,
        embed_dim=config.embed_dim,
        depth=config.depth,
        num_heads=config.num_heads,
        mlp_ratio=config.mlp_ratio,
        qkv_bias=config.qkv_bias,
        init_values=config.init_values,
        class_token=config.class_token,
        reg_tokens=config.reg_tokens,
        fc_norm=config.fc_norm,
        act_layer=None if config.act_layer == "gelu" else config.act_layer,
        norm_layer=lambda dim, **more: torch.nn.LayerNorm(dim, eps=config.norm_eps, **more),
    ).double()
    names = re.compile(r"^shared\.(\d+)\.")
    own = re.compile(r"\.(attn\.(before|after|positions)|local)\.")
    state = {
        names.sub(r"blocks.\1.", n): t for n, t in per_block(model).items() if not own.search(n)
    }
    other.load_state_dict(state, strict=True)
    return other.eval()


def by_formula(model, image):
    """Logits for one image [c, h, w], by the equations of the paper, a loop over each sum's parts.

    For a model with head mixing and contextual positions on keys, without prefix tokens, pooled
    by the mean.
    """
    state, config = model.state_dict(), model.config
    dim, heads, side = config.embed_dim, config.num_heads, config.patch_size
    rows = config.img_size // side
    patches = image.unfold(1, side, side).unfold(2, side, side)  # [c, rows, columns, side, side]
    flat = patches.permute(1, 2, 0, 3, 4).reshape(rows * rows, -1)
    kernel = state["patch_embed.proj.weight"].reshape(dim, -1)
    tokens = flat @ kernel.T + state["patch_embed.proj.bias"] + state["pos_embed"][0]
    for number in range(config.depth):
        own, ours = f"blocks.{number}.", f"shared.{group_of(model.group_sizes, number)}."
        inside = _normed(tokens, state, own + "norm1")
        products = inside @ state[ours + "attn.qkv.weight"].T + state[ours + "attn.qkv.bias"]
        query, key, value = (part.reshape(-1, heads, dim // heads) for part in products.chunk(3, 1))
        query = query / math.sqrt(dim // heads)
        table = state[own + "attn.positions.key"][0]
        logits = [_logits(query[:, head], key[:, head], table, rows) for head in range(heads)]
        chances = [one.softmax(-1) for one in _mixed(logits, state[own + "attn.before.weight"])]
        maps = _mixed(chances, state[own + "attn.after.weight"])
        found = torch.cat([maps[head] @ value[:, head] for head in range(heads)], 1)
        tokens = (
            tokens + found @ state[ours + "attn.proj.weight"].T + state[ours + "attn.proj.bias"]
        )
        inside = _normed(tokens, state, own + "norm2")
        hidden = F.gelu(inside @ state[ours + "mlp.fc1.weight"].T + state[ours + "mlp.fc1.bias"])
        tokens = tokens + hidden @ state[ours + "mlp.fc2.weight"].T + state[ours + "mlp.fc2.bias"]
    pooled = _normed(tokens, state, "norm").mean(0)
    return state["head.weight"] @ pooled + state["head.bias"]


def _normed(tokens, state, name):
    centered = tokens - tokens.mean(1, keepdim=True)
    spread = centered.square().mean(1, keepdim=True) + 1e-6
    return centered / spread.sqrt() * state[name + ".weight"] + state[name + ".bias"]


def _mixed(maps, weight):
    return [sum(w * one for w, one in zip(row, maps, strict=True)) for row in weight]


def _logits(query, key, table, columns):
    """Every pair of patches by itself."""
    count = len(query)
    found = torch.empty(count, count, dtype=query.dtype)
    for i in range(count):
        for j in range(count):
            down, right = i // columns - j // columns, i % columns - j % columns
            bucket = (_place(down) + 3) * 7 + _place(right) + 3
            found[i, j] = query[i] @ (key[j] + table[:, bucket])
    return found


def _place(offset):
    """As a table of the authors' code says: four and more are one bucket."""
    near = {0: 0, 1: 1, 2: 2, 3: 2}.get(abs(offset), 3)
    return near if offset > 0 else -near
