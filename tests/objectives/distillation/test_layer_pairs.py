"""Which block learns from which."""

import pytest

from vitarium.core.errors import InvalidInput
from vitarium.objectives.distillation._blocks import layer_pairs


def test_every_second_block_is_counted_from_the_last():
    assert layer_pairs("every_second", 12, 12) == tuple((i, i) for i in (1, 3, 5, 7, 9, 11))
    assert layer_pairs("every_second", 5, 5) == ((0, 0), (2, 2), (4, 4))
    assert layer_pairs("every_second", 1, 1) == ((0, 0),)


def test_all_and_last():
    assert layer_pairs("all", 3, 3) == ((0, 0), (1, 1), (2, 2))
    assert layer_pairs("last", 6, 12) == ((5, 11),)


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [
        (6, 12, ((1, 3), (3, 7), (5, 11))),
        (12, 24, ((1, 3), (3, 7), (5, 11), (7, 15), (9, 19), (11, 23))),
        (4, 6, ((1, 2), (3, 5))),
        (6, 4, ((1, 1), (3, 2), (5, 3))),
        (6, 1, ((1, 0), (3, 0), (5, 0))),
    ],
)
def test_another_depth_is_paired_in_proportion(student, teacher, expected):
    assert layer_pairs("every_second", student, teacher) == expected


def test_last_goes_with_last_and_order_is_kept_at_all_depths():
    for student in range(1, 15):
        for teacher in range(1, 15):
            pairs = layer_pairs("all", student, teacher)
            theirs = [other for _, other in pairs]
            assert pairs[-1] == (student - 1, teacher - 1)
            assert theirs == sorted(theirs)
            assert theirs[0] >= 0


def test_pairs_are_taken_as_they_are_told():
    assert layer_pairs(((5, 2), (1, 3)), 6, 4) == ((1, 3), (5, 2))


def test_blocks_that_are_not_there_are_refused_with_what_there_is():
    with pytest.raises(InvalidInput, match="student has no block 6: it has 6, from 0 to 5"):
        layer_pairs(((6, 2),), 6, 4)
    with pytest.raises(InvalidInput, match="teacher has no block 4: it has 4"):
        layer_pairs(((5, 4),), 6, 4)
