"""Attention probabilities of a vision transformer, block by block, while it runs.

Only one block's are in memory at a time: they are handed to a function, and dropped.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vitarium.architectures.features import blocks, prefix_tokens
from vitarium.core.errors import InvalidInput, NotApplicable
from vitarium.evaluation.features import evaluating
from vitarium.evaluation.inputs import EvalModel

See = Callable[[str, Tensor], None]
"""Called with a block's name and its probabilities, float [n, heads, tokens, tokens]; rows are
queries, and sum to 1."""

BATCH_SIZE = 32
"""Images in a forward pass; no value depends on it."""
_ROUNDING = 1e-3


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
    modules = _attentions(model)
    visited: list[str] = []
    with torch.inference_mode(), evaluating(model), _unfused(modules.values()):
        hooks = [
            takes_probabilities(module).register_forward_pre_hook(
                _probability_hook(name, len(images), see, visited)
            )
            for name, module in modules.items()
        ]
        try:
            model(images)
        finally:
            for hook in hooks:
                hook.remove()
    if visited != list(modules):
        raise NotApplicable(f"a {type(model).__name__} does not attend once in each block")


def over(subject: EvalModel, images: int, see: See) -> None:
    """`watch` for so many of the examples of a subject."""
    for batch in subject.examples.first(images).batches(BATCH_SIZE):
        watch(subject.model, batch.images, see)


def takes_probabilities(attention: Any) -> nn.Module:
    """The part of an attention that is handed its probabilities: timm's `attn_drop`, or another."""
    module: nn.Module = getattr(attention, "probabilities_to", attention.attn_drop)
    return module


def by_layer_and_head(heads: dict[str, Tensor]) -> dict[str, float]:
    """Values [heads] of each block -> parts `blocks.0/head0`, `blocks.0`, and "" of all blocks.

    A block's is the mean of its heads, the model's the mean of its blocks.
    """
    parts = {name: float(head_values.mean()) for name, head_values in heads.items()}
    mean = {"": sum(parts.values()) / len(parts)}
    single = {
        f"{name}/head{number}": float(value)
        for name, head_values in heads.items()
        for number, value in enumerate(head_values)
    }
    return mean | parts | single


def _attentions(model: nn.Module) -> dict[str, Any]:
    """The attention of each block, by the block's name."""
    try:
        stack = blocks(model)
    except InvalidInput as error:
        raise NotApplicable(str(error)) from None
    attentions = {}
    for name, block in stack.items():
        inside = [module for module in block.modules() if _is_attention(module)]
        if len(inside) != 1:
            raise NotApplicable(
                f"{name} of a {type(model).__name__} has {len(inside)} attentions that can be "
                "looked at, not one"
            )
        attentions[name] = inside[0]
    return attentions


def _is_attention(module: nn.Module) -> bool:
    dropout = getattr(module, "attn_drop", None)
    return hasattr(module, "fused_attn") and isinstance(dropout, nn.Module)


@contextmanager
def _unfused(modules: Any) -> Iterator[None]:
    """Inside, probabilities pass through `attn_drop`: timm's fused attention never has them."""
    before = [(module, module.fused_attn) for module in modules]
    for module, _ in before:
        module.fused_attn = False
    try:
        yield
    finally:
        for module, fused in before:
            module.fused_attn = fused


def _probability_hook(
    name: str, images: int, see: See, visited: list[str]
) -> Callable[[nn.Module, tuple[Tensor]], None]:
    def hook(module: nn.Module, inputs: tuple[Tensor]) -> None:
        (maps,) = inputs
        shape = list(maps.shape)
        if len(shape) != 4 or shape[0] != images or shape[2] != shape[3]:
            raise NotApplicable(f"{name} attends inside windows or otherwise: {shape}")
        off = (maps.sum(-1) - 1).abs().amax()
        if not off < _ROUNDING:
            raise NotApplicable(f"{name}: what its tokens attend to does not sum to 1")
        visited.append(name)
        see(name, maps)

    return hook
