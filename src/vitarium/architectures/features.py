"""Features, blocks and prefix tokens of a vision transformer."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from torch import Tensor, nn

from vitarium.core.errors import InvalidInput

_STACKS = ("blocks", "layers", "stages")  # what timm's models call their blocks


def features(model: nn.Module, images: Tensor) -> Tensor:
    """Pooled features of images [batch, c, h, w] -> [batch, num_features], without the head."""
    tokens = model.forward_features(images)  # type: ignore[operator]
    return model.forward_head(tokens, pre_logits=True)  # type: ignore[operator]


def is_linearized(model: nn.Module) -> bool:
    """Whether its features are a derivative of its layers, of which none gives a part of them."""
    return bool(getattr(model, "is_linearized", False))


def leaves_early(model: nn.Module) -> bool:
    """Whether images leave it after some blocks, so that later ones compute a part of a batch."""
    return bool(getattr(model, "leaves_early", False))


@contextmanager
def at_full_depth(model: nn.Module) -> Iterator[None]:
    """Inside, all images go through all blocks of the model, as long as it is called by itself."""
    if not leaves_early(model):
        yield
        return
    exiting: Any = model
    exiting.full_depth = True
    try:
        yield
    finally:
        exiting.full_depth = False


def blocks(model: nn.Module) -> dict[str, nn.Module]:
    """A model's blocks in order, by their dotted names. Raises InvalidInput where it has none, or
    where they do not compute its features (`is_linearized`)."""
    if is_linearized(model):
        raise InvalidInput(
            f"{type(model).__name__} is linear in its tangent: no block gives tokens"
        )
    for name in _STACKS:
        stack = getattr(model, name, None)
        if isinstance(stack, nn.Sequential | nn.ModuleList) and len(stack):
            return {f"{name}.{index}": block for index, block in stack.named_children()}
    raise InvalidInput(f"{type(model).__name__} has no blocks: no {', '.join(_STACKS)}")


def transformer_blocks(model: nn.Module) -> dict[str, nn.Module]:
    """Every block with an `attn` and an `mlp`, in order of depth, by dotted name: also those inside
    of the stages of a hierarchical model. Raises InvalidInput where there is none."""
    named_blocks = dict(_transformer_blocks(model))
    if not named_blocks:
        raise InvalidInput(
            f"{type(model).__name__} has no transformer blocks: none of its "
            f"{', '.join(_STACKS)} has an attn and an mlp"
        )
    return named_blocks


def _transformer_blocks(model: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    with suppress(InvalidInput):
        for name, part in blocks(model).items():
            if all(isinstance(getattr(part, child, None), nn.Module) for child in ("attn", "mlp")):
                yield f"{prefix}{name}", part
            else:
                yield from _transformer_blocks(part, f"{prefix}{name}.")


def prefix_tokens(model: nn.Module) -> int:
    """How many tokens stand before the patches': the class token and registers."""
    return int(getattr(model, "num_prefix_tokens", 0))


def prompt_tokens(model: nn.Module) -> int:
    """How many prompts stand between those and the patches' inside of its blocks."""
    return int(getattr(model, "num_prompts", 0))
