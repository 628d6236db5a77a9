"""Queries, keys, values and outputs of a model's blocks, recorded by hooks in a forward pass."""

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from vitarium.architectures.features import transformer_blocks
from vitarium.core.errors import InvalidInput


@dataclass(frozen=True)
class Recorded:
    """Of each block that was asked for, by its number from 0; of the model's last call.

    qkv: queries, keys and values side by side, [batch, n, 3 * width]; where attention is in
        windows [batch * windows, n, 3 * width].
    hidden: the block's output, [batch, n, width] or [batch, h, w, width].
    """

    qkv: dict[int, Tensor] = field(default_factory=dict)
    hidden: dict[int, Tensor] = field(default_factory=dict)


@contextmanager
def recording(
    model: nn.Module, *, qkv: Collection[int] = (), hidden: Collection[int] = ()
) -> Iterator[Recorded]:
    """Inside, calls of the model are recorded; its outputs are what they are without.

    The recorded tensors are the model's own, with their graphs. Works within functional_call and
    vmap, where they are those of one model; not on a compiled model.

    Args:
        qkv, hidden: numbers of blocks.

    Raises InvalidInput where there is no such block, or where it has no `attn.qkv`.
    """
    recorded, blocks = Recorded(), list(transformer_blocks(model).values())
    with ExitStack() as hooks:
        for number in qkv:
            projection = getattr(_numbered(blocks, number, model).attn, "qkv", None)
            if not isinstance(projection, nn.Module):
                raise InvalidInput(
                    f"block {number} of {type(model).__name__} has no attn.qkv, which gives "
                    "queries, keys and values as one"
                )
            hooks.callback(projection.register_forward_hook(_noting(recorded.qkv, number)).remove)
        for number in hidden:
            block = _numbered(blocks, number, model)
            hooks.callback(block.register_forward_hook(_noting(recorded.hidden, number)).remove)
        yield recorded


def depth(model: nn.Module) -> int:
    """Number of blocks. Raises InvalidInput where it has none."""
    return len(transformer_blocks(model))


def window_shift(model: nn.Module, number: int) -> tuple[int, ...] | None:
    """By how many rows and columns a block's windows are shifted; None where it has no windows."""
    block = _numbered(list(transformer_blocks(model).values()), number, model)
    for owner, name in ((block, "shift_size"), (block.attn, "shift")):  # timm's, and ours
        shift = getattr(owner, name, None)
        if isinstance(shift, tuple):
            return tuple(shift)
    return None


def _numbered(blocks: list[nn.Module], number: int, model: nn.Module) -> nn.Module:
    if not 0 <= number < len(blocks):
        raise InvalidInput(
            f"{type(model).__name__} has no block {number}: it has {len(blocks)}, from 0"
        )
    return blocks[number]


def _noting(outputs: dict[int, Tensor], number: int) -> Any:
    def note(module: nn.Module, inputs: Any, output: Tensor) -> None:
        outputs[number] = output

    return note
