"""Patterns of sharing: the groups they make of the blocks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitarium.architectures.multiplexed._sharing import group_of, group_sizes


@pytest.mark.parametrize(
    ("share", "sizes"),
    [
        (1, (1,) * 12),
        (2, (2,) * 6),
        (12, (12,)),
        ("all", (12,)),
        ((4, 4, 2, 2), (4, 4, 2, 2)),
        ((1, 11), (1, 11)),
    ],
)
def test_groups_of_twelve_blocks(share, sizes):
    assert group_sizes(share, 12) == sizes


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6).map(tuple))
def test_groups_are_of_consecutive_blocks_and_as_large_as_said(sizes):
    groups = [group_of(group_sizes(sizes, sum(sizes)), block) for block in range(sum(sizes))]
    assert groups == [number for number, size in enumerate(sizes) for _ in range(size)]
