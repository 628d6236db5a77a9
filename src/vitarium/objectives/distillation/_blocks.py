"""Blocks of a student and of its teacher: which are paired, and what is recorded of them."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Literal

from pydantic import NonNegativeInt
from torch import Tensor, nn

from vitarium.architectures.features import at_full_depth, transformer_blocks
from vitarium.core.errors import InvalidInput

Layers = Literal["every_second", "all", "last"] | tuple[tuple[NonNegativeInt, NonNegativeInt], ...]
"""Blocks of the student by name, or pairs of (student's, teacher's) block, both from 0."""

Pairs = tuple[tuple[int, int], ...]


def layer_pairs(layers: Layers, student: int, teacher: int) -> Pairs:
    """The pairs (student's block, teacher's block) for so many blocks of each, in order.

    "every_second" counts from the last: 1, 3, ..., 11 of 12. Block i of L is paired with the block
    of the teacher that stands as deep: the one with (i + 1) / L of its blocks done, rounded up.

    Raises InvalidInput for a block that one of them does not have.
    """
    if isinstance(layers, str):
        chosen: Sequence[int] = {
            "every_second": range(student - 1, -1, -2),
            "all": range(student),
            "last": (student - 1,),
        }[layers]
        return tuple((i, -(-(i + 1) * teacher // student) - 1) for i in sorted(chosen))
    for side, (whose, count) in enumerate((("student", student), ("teacher", teacher))):
        if missing := [pair[side] for pair in layers if pair[side] >= count]:
            has = f"it has {count}, from 0 to {count - 1}"
            raise InvalidInput(f"layers: the {whose} has no block {missing[0]}: {has}")
    return tuple(sorted(layers))


@contextmanager
def recording(model: nn.Module, names: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """Inside, calls of the model are recorded; its outputs are what they are without.

    The recorded tensors are the model's own, with their graphs, of its last call. Works within
    functional_call and vmap, where they are those of one model; not on a compiled model.

    Names are of a block with its number from 0: "qkv.3", queries, keys and values side by side,
    [batch, n, 3 * width] (in windows [batch * windows, n, 3 * width]); or "hidden.3", its output,
    [batch, n, width] or [batch, h, w, width].

    Raises InvalidInput where there is no such block, where it has no `attn.qkv` or gives no tensor,
    and afterwards where the model computed without it, as one that samples sub-networks does.
    """
    recorded: dict[str, Tensor] = {}
    names = list(names)
    with ExitStack() as hooks:
        hooks.enter_context(at_full_depth(model))
        for name in names:
            kind, number = name.split(".")
            module: nn.Module | None = _numbered(model, int(number))
            if kind == "qkv":
                module = getattr(getattr(module, "attn", None), "qkv", None)
            if not isinstance(module, nn.Module):
                where = f"block {number} of {type(model).__name__}"
                raise InvalidInput(
                    f"{where} has no attn.qkv, which gives queries, keys and values as one"
                )
            hook = module.register_forward_hook(
                lambda _, __, output, name=name: recorded.update({name: _tensor(name, output)})
            )
            hooks.callback(hook.remove)
        yield recorded
    if missing := [name for name in names if name not in recorded]:
        _, _, number = missing[0].partition(".")
        raise InvalidInput(
            f"{type(model).__name__} computes its outputs without its block {number}, of which "
            "nothing can be read: choose an objective that takes the model's outputs alone"
        )


def _tensor(name: str, output: object) -> Tensor:
    if isinstance(output, Tensor):
        return output
    _, _, number = name.partition(".")
    raise InvalidInput(f"block {number} gives no tensor of tokens, but a {type(output).__name__}")


def window_shift(model: nn.Module, number: int) -> tuple[int, ...] | None:
    """By how many rows and columns a block's windows are shifted; None where it has no windows."""
    block = _numbered(model, number)
    for owner, name in ((block, "shift_size"), (block.attn, "shift")):  # timm's, and ours
        shift = getattr(owner, name, None)
        if isinstance(shift, tuple):
            return tuple(shift)
    return None


def _numbered(model: nn.Module, number: int) -> nn.Module:
    blocks = list(transformer_blocks(model).values())
    if not 0 <= number < len(blocks):
        kind = type(model).__name__
        raise InvalidInput(f"{kind} has no block {number}: it has {len(blocks)}, from 0")
    return blocks[number]
