"""What blocks share and what each has of its own, as settings of Mini-DeiT and Mini-Swin."""

from itertools import accumulate
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, NonNegativeInt, PositiveInt

from vitarium.architectures.base import TransformerConfig

Start = Literal["trunc_normal", "identity"]
LocalNorm = Literal["branch", "stream"]
"""branch: x + convolution(norm(x)); stream: norm(x) + convolution(norm(x)), as MiniViT released."""


def _odd_or_none(size: int) -> int:
    if size and size % 2 == 0:
        fitting = f"use {size - 1} or {size + 1}, or 0 for none"
        raise ValueError(f"a kernel of {size} has no middle; {fitting}")
    return size


KernelSize = Annotated[NonNegativeInt, AfterValidator(_odd_or_none)]
"""Rows and columns of patches that the convolution sees; odd, or 0 for no convolution."""


class Multiplexing(TransformerConfig):
    """Weight multiplexing: the parts that each block has of its own."""

    separate_norms: bool = True
    """Give each block its own LayerNorms, though blocks share other weights."""
    mix_before: bool = True
    """Give each block a linear map across heads for its attention logits, before the softmax."""
    mix_after: bool = True
    """Give each block a linear map across heads for its attention probabilities, after the
    softmax."""
    mixing_init: Start = "trunc_normal"
    """Initial value of each block's maps across heads: small random numbers, as the authors have
    it, or the identity. With the identity the convolution starts at zero, too, and blocks start as
    plain ones."""
    convolution: KernelSize = 0
    """Kernel size (odd) of a depth-wise convolution over the patches, between attention and MLP of
    each block; 0: no convolution, as in Mini-DeiT."""
    local_norm: LocalNorm = "branch"
    """Where the convolution's LayerNorm acts: in its branch, x + convolution(norm(x)), or on the
    stream of all tokens, norm(x) + convolution(norm(x)), as released for Mini-Swin."""


def fits(share: Any) -> bool:
    """Whether it is a number of blocks, "all", or a list of such numbers."""
    sizes = share if isinstance(share, list | tuple) else [share]
    return bool(share == "all") or all(type(size) is int and size > 0 for size in sizes)


def _read(value: Any) -> Any:
    """One complaint, where a union would have one for each kind of value."""
    if not fits(value):
        kinds = "a number of blocks from 1, 'all', or a list of such numbers"
        raise ValueError(f"{value!r} is not {kinds}")
    return value


Sharing = Annotated[PositiveInt | Literal["all"] | tuple[PositiveInt, ...], BeforeValidator(_read)]
"""2: every two consecutive blocks; "all": all of them; (4, 4, 2, 2): groups of such sizes."""


def group_sizes(share: Sharing, depth: int) -> tuple[int, ...]:
    """How many consecutive blocks each set of weights serves, together `depth`; else ValueError."""
    if share == "all":
        return (depth,)
    if isinstance(share, tuple):
        if sum(share) != depth:
            raise ValueError(
                f"share {list(share)} is for {sum(share)} blocks, but there are {depth}; let the "
                f"sizes of the groups add up to {depth}"
            )
        return share
    assert isinstance(share, int)  # for mypy
    if depth % share:
        fitting = [size for size in range(1, depth + 1) if depth % size == 0]
        raise ValueError(
            f"share {share} does not divide {depth} blocks; use one of "
            f"{', '.join(map(str, fitting))}, 'all', or a list of sizes that add up to {depth}"
        )
    return (share,) * (depth // share)


def group_of(sizes: tuple[int, ...], block: int) -> int:
    """Number of the group to which a block belongs."""
    return next(group for group, end in enumerate(accumulate(sizes)) if block < end)
