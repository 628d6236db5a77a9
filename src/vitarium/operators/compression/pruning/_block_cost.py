"""What a block of a pruned ViT costs: multiply-adds, or time that is measured on this machine."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import product
from statistics import median
from typing import Any

import numpy as np
import torch
from scipy.interpolate import RegularGridInterpolator

from vitarium.core.devices import meta_device
from vitarium.core.registry import Section
from vitarium.operators.compression.pruning._structures import Sizes

BlockSizes = tuple[int, int, int, int, int]
"""Width of the stream, heads, channels of each head's queries and keys, of its values, hidden
units."""
BlockCost = Callable[[BlockSizes], float]
_RUNS = 5
_WARM_UP = 2


def block_sizes(sizes: Sizes) -> list[BlockSizes]:
    """Of each block."""
    columns = zip(sizes.heads, sizes.qk_dims, sizes.v_dims, sizes.hidden, strict=True)
    return [(sizes.embed_dim, *of_block) for of_block in columns]


def multiply_adds(tokens: int) -> BlockCost:
    """Of a block, per token of an image with so many, in matrix products without biases."""

    def cost(sizes: BlockSizes) -> float:
        width, heads, qk_dim, v_dim, hidden = sizes
        attention = width * heads * (2 * qk_dim + 2 * v_dim) + tokens * heads * (qk_dim + v_dim)
        return float(attention + 2 * width * hidden)

    return cost


def interpolated(points: Sequence[Sequence[int]], values: Mapping[BlockSizes, float]) -> BlockCost:
    """Multilinear between a grid of sizes: `points` of each of the five, rising, with a value for
    each combination. Sizes with a single point are fixed."""
    axes = [number for number, sizes in enumerate(points) if len(sizes) > 1]
    table = np.array([values[tuple(sizes)] for sizes in product(*points)])  # type: ignore[index]
    if not axes:
        return lambda _: float(table[0])
    grid = table.reshape([len(points[number]) for number in axes])
    interpolate = RegularGridInterpolator([points[number] for number in axes], grid)

    @lru_cache(maxsize=65536)
    def cost(sizes: BlockSizes) -> float:
        return float(interpolate([sizes[number] for number in axes])[0])

    return cost


def grid_points(sizes: Sizes, structures: Sequence[str]) -> list[list[int]]:
    """Of each of the five sizes, one unit, half of them and all; all of what stays as it is."""
    largest = {"embed_dim": sizes.embed_dim}
    for name in ("heads", "qk_dims", "v_dims", "hidden"):
        largest[name] = max(getattr(sizes, name))
    return [
        sorted({1, -(-size // 2), size}) if name in structures else [size]
        for name, size in largest.items()
    ]


def measured(
    architecture: Section, points: Sequence[Sequence[int]], *, batch_size: int, device: str
) -> dict[BlockSizes, float]:
    """Seconds of a block's forward pass for each combination of sizes: the median of a few runs in
    float32, on tokens of `batch_size` images."""
    head_dim = Sizes.of_section(architecture).head_dim
    with meta_device():
        tokens = token_count(architecture(1))
    seconds: dict[BlockSizes, float] = {}
    for embed_dim, heads, qk_dim, v_dim, hidden in product(*points):
        sizes = Sizes(embed_dim, head_dim, (heads,), (qk_dim,), (v_dim,), (hidden,))
        model: Any = sizes.section(architecture)(1)
        inputs = torch.randn(batch_size, tokens, embed_dim, device=device)
        seconds[embed_dim, heads, qk_dim, v_dim, hidden] = _time(
            model.blocks[0].eval().to(device), inputs
        )
    return seconds


def token_count(model: Any) -> int:
    """Tokens of an image in the blocks of a ViT."""
    return int(model.patch_embed.num_patches + model.num_prefix_tokens)


@torch.inference_mode()
def _time(block: torch.nn.Module, inputs: torch.Tensor) -> float:
    times = []
    for run in range(_WARM_UP + _RUNS):
        start = time.perf_counter()
        block(inputs)
        if inputs.is_cuda:
            torch.cuda.synchronize(inputs.device)
        if run >= _WARM_UP:
            times.append(time.perf_counter() - start)
    return median(times)
