"""Which blocks share one set of weights."""

from itertools import accumulate
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, PositiveInt


def _read(value: Any) -> Any:
    """One complaint, where a union would have one for each kind of value."""
    sizes = value if isinstance(value, list | tuple) else [value]
    if value != "all" and not all(type(size) is int and size > 0 for size in sizes):
        raise ValueError(
            f"{value!r} is not a number of blocks from 1, 'all', or a list of such numbers"
        )
    return value


Sharing = Annotated[PositiveInt | Literal["all"] | tuple[PositiveInt, ...], BeforeValidator(_read)]
"""2: every two consecutive blocks; "all": all of them; (4, 4, 2, 2): groups of such sizes."""


def group_sizes(share: Sharing, depth: int) -> tuple[int, ...]:
    """How many consecutive blocks each set of weights serves; together `depth`.

    Raises ValueError for a pattern that does not divide the blocks.
    """
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
