"""Which epochs are averaged."""

import pytest

from vitarium.core.errors import InvalidInput
from vitarium.operators.averaging.epoch_averages import EpochAverage, Lawa, Swa, latest_epochs


def test_all_epochs_are_all_that_are_given():
    assert EpochAverage(last=None).epochs([1, 2]) == [1, 2]
    assert EpochAverage(last=None).epochs([]) == []


def test_the_latest_are_those_that_are_kept():
    assert latest_epochs([2, 4, 6, 8], 3) == [4, 6, 8]
    assert Lawa(k=2).epochs([0, 1, 2]) == [1, 2]
    assert Lawa(k=3).epochs([0, 1, 2]) == [0, 1, 2]


def test_more_than_are_kept_are_refused():
    with pytest.raises(InvalidInput, match=r"last 3 epochs are asked for, and 2 are kept \(1, 2\)"):
        latest_epochs([1, 2], 3)
    with pytest.raises(InvalidInput, match=r"0 are kept \(none\)"):
        latest_epochs([], 2)


@pytest.mark.parametrize(
    ("start", "step", "expected"),
    [
        (0.75, 1, [15, 16, 17, 18, 19, 20]),
        (0.75, 2, [15, 17, 19]),
        (0.55, 4, [11, 15, 19]),  # 0.55 * 20 is 11.000000000000002 in floating point
        (0, 9, [1, 10, 19]),
        (1, 1, [20]),
    ],
)
def test_every_so_manieth_counts_from_a_share_of_training_on(start, step, expected):
    swa = Swa(start=start, every=step)
    assert swa.epochs(list(range(1, 21))) == expected
    # a program that counts from 0: the same states under other numbers
    assert swa.epochs(list(range(20))) == [epoch - 1 for epoch in expected]


def test_steps_count_the_kept_epochs():
    assert Swa(start=0.5, every=2).epochs([5, 10, 15, 20]) == [10, 20]
