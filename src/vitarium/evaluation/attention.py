"""Attention probabilities of a vision transformer while it runs, one block's at a time."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from vitarium.architectures.features import prefix_tokens
from vitarium.core.config import Config
from vitarium.core.errors import NotApplicable
from vitarium.evaluation.features import blocks_of, evaluating
from vitarium.evaluation.inputs import EvalModel

See = Callable[[str, Tensor], None]
"""Takes a block's name and probabilities, float [n, heads, queries, keys]; rows sum to 1."""

BATCH_SIZE = 32
"""Images in a forward pass; no value depends on it."""


class OnImages(Config):
    """Base of the settings of measures of attention: on so many images."""

    num_images: PositiveInt = 256
    """Largest number of images of the split to use."""


@dataclass(frozen=True)
class Grid:
    """The grid of a model's patches."""

    height: int
    width: int
    prefix: int
    """Tokens before the patches'."""

    def __len__(self) -> int:
        return self.height * self.width


def grid(model: nn.Module) -> Grid:
    """The patches of a model. Raises NotApplicable where it has no plain grid of patches."""
    size = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    if size is None:
        raise NotApplicable(f"{type(model).__name__} has no grid of patches")
    return Grid(int(size[0]), int(size[1]), prefix_tokens(model))


def watch(model: nn.Module, images: Tensor, see: See) -> None:
    """Run a model on images [n, c, h, w] and let `see` have each block's probabilities in turn.

    Raises NotApplicable where blocks have no attention over all tokens that can be looked at.
    """
    attentions = _attentions(model)
    visited: list[str] = []

    def check(name: str, probabilities: Tensor) -> None:
        shape = list(probabilities.shape)
        if len(shape) != 4 or shape[0] != len(images) or shape[2] != shape[3]:
            raise NotApplicable(f"{name} attends inside windows or otherwise: {shape}")
        off = (probabilities.sum(-1) - 1).abs().amax()
        if not off < 1e-3:  # rounding
            raise NotApplicable(f"{name}: what its tokens attend to does not sum to 1")
        visited.append(name)
        see(name, probabilities)

    with ExitStack() as stack:
        for name, attention in attentions.items():
            # probabilities pass through `attn_drop`: timm's fused attention never has them
            stack.callback(setattr, attention, "fused_attn", attention.fused_attn)
            attention.fused_attn = False
            module: nn.Module = getattr(attention, "probabilities_to", attention.attn_drop)
            hook = module.register_forward_pre_hook(lambda _, got, name=name: check(name, *got))
            stack.callback(hook.remove)
        with torch.inference_mode(), evaluating(model):
            model(images)
    if visited != list(attentions):
        kind, counts = type(model).__name__, {name: visited.count(name) for name in attentions}
        seen = [f"{count} times in {name}" for name, count in counts.items() if count != 1]
        raise NotApplicable(
            f"a {kind} does not attend once in each block: probabilities pass through `attn_drop` "
            f"{seen[0] if seen else 'in another order than that of the blocks'}"
        )


def means_by_head(
    subject: EvalModel,
    num_images: int,
    summed: Callable[[str, Tensor], tuple[Tensor, Tensor | int]],
) -> dict[str, float]:
    """Means: parts "blocks.0/head0", "blocks.0" (mean of its heads), and "" (mean of blocks).

    `summed` is called as a `See`; it gives sums [heads], and of how many numbers, [heads] or one.
    """
    sums: dict[str, Any] = {}
    counts: dict[str, Any] = {}

    def see(name: str, probabilities: Tensor) -> None:
        total, count = summed(name, probabilities)
        sums[name], counts[name] = sums.get(name, 0) + total, counts.get(name, 0) + count

    for batch in subject.examples.first(num_images).batches(BATCH_SIZE):
        watch(subject.model, batch.images, see)
    heads = {name: total / counts[name] for name, total in sums.items()}
    parts = {name: float(values.mean()) for name, values in heads.items()}
    single = {
        f"{name}/head{number}": value
        for name, values in heads.items()
        for number, value in enumerate(values.tolist())
    }
    return {"": sum(parts.values()) / len(parts), **parts, **single}


def _attentions(model: nn.Module) -> dict[str, Any]:
    """The attention of each block, by the block's name."""
    attentions = {}
    for name, block in blocks_of(model).items():
        inside = [
            module
            for module in block.modules()
            if hasattr(module, "fused_attn")
            and isinstance(getattr(module, "attn_drop", None), nn.Module)
        ]
        if len(inside) != 1:
            count = f"{len(inside)} attentions that can be looked at, not one"
            raise NotApplicable(f"{name} of a {type(model).__name__} has {count}")
        attentions[name] = inside[0]
    return attentions
