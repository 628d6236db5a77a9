"""Patterns of sharing: the groups they make of the blocks, and those that are refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitarium.architectures.multiplexed._sharing import group_of, group_sizes
from vitarium.core.config import InvalidConfig
from vitarium.core.registry import choose


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


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (7, "share 7 does not divide 12 blocks; use one of 1, 2, 3, 4, 6, 12, 'all', or a list"),
        (24, "share 24 does not divide 12 blocks"),
        ([4, 4, 2], r"share \[4, 4, 2\] is for 10 blocks, but there are 12; let the sizes"),
        ([8, 8], r"share \[8, 8\] is for 16 blocks, but there are 12"),
        ([], r"share \[\] is for 0 blocks"),
        (0, "share: 0 is not a number of blocks from 1, 'all', or a list of such numbers"),
        (-2, "share: -2 is not a number of blocks from 1"),
        (2.5, "share: 2.5 is not a number of blocks from 1"),
        (True, "share: True is not a number of blocks from 1"),
        (None, "share: None is not a number of blocks from 1"),
        ("some", "share: 'some' is not a number of blocks from 1, 'all', or a list"),
        ([6, 0, 6], r"share: \[6, 0, 6\] is not a number of blocks from 1"),
        ([6, "all"], r"share: \[6, 'all'\] is not a number of blocks from 1"),
    ],
)
def test_a_pattern_that_does_not_fit_is_refused_once_with_what_to_change(share, said):
    with pytest.raises(InvalidConfig, match=said) as caught:
        choose("architecture", "mini_deit", share=share)
    assert len(caught.value.problems) == 1


def test_a_pattern_has_to_fit_the_blocks_that_there_are():
    with pytest.raises(InvalidConfig, match="share 4 does not divide 6 blocks; use one of 1, 2, 3"):
        choose("architecture", "mini_deit", depth=6, share=4)
    assert choose("architecture", "mini_deit", depth=6, share=[4, 2]).config.share == (4, 2)
