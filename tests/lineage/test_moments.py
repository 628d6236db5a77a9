"""Moments of numbers that come in parts: as scipy's of all at once, and NaN where there are none."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from vitarium.lineage._statistics import MOMENTS, PowerSums, moments


def in_parts(numbers: np.ndarray, ends: list[int]) -> dict[str, float]:
    parts = [[PowerSums().of(part)] for part in np.split(numbers, ends)]
    statistics = moments(PowerSums().joined(np.array(parts)))
    assert tuple(statistics) == MOMENTS
    return {kind: value[0] for kind, value in statistics.items()}


def singles(numbers) -> np.ndarray:
    """Numbers of a checkpoint, as they are given: float32 in float64."""
    return np.asarray(numbers, np.float32).astype(float)


@settings(deadline=None, max_examples=40)
@given(
    count=st.integers(2, 3000),
    mean=st.sampled_from([0.0, -1e-3, 1.0, -50.0]),
    spread=st.sampled_from([1e-3, 0.02, 1.0, 100.0]),
    tails=st.sampled_from([2.1, 5.0, 1e6]),
    ends=st.lists(st.floats(0.0, 1.0), max_size=5),
    seed=st.integers(0, 2**31),
)
def test_moments_of_parts_are_scipys_of_the_whole(count, mean, spread, tails, ends, seed):
    noise = np.random.default_rng(seed)
    numbers = singles(mean + spread * noise.standard_t(tails, count))
    # an empty part has nothing to say, and is never given beside others
    statistics = in_parts(numbers, sorted({int(end * (count - 1)) for end in ends} - {0}))
    assert statistics["mean"] == pytest.approx(numbers.mean(), rel=1e-12, abs=1e-15 * spread)
    assert statistics["variance"] == pytest.approx(numbers.var(), rel=1e-9)
    assert statistics["kurtosis"] + 3 == pytest.approx(stats.kurtosis(numbers) + 3, rel=1e-9)
    assert statistics["zeros"] == 0


def test_a_spread_far_below_the_mean_costs_no_digits():
    noise = np.random.default_rng(0)
    numbers = singles(1 + 1e-4 * noise.standard_normal(40_000) ** 3)
    statistics = in_parts(numbers, [16_384, 32_768])
    assert statistics["kurtosis"] == pytest.approx(stats.kurtosis(numbers), rel=1e-9)
    assert statistics["variance"] == pytest.approx(numbers.var(), rel=1e-9)


def test_parts_of_different_means_keep_their_digits():
    noise = np.random.default_rng(0)
    numbers = singles([1e3, 1, 1e-3, -1e3] @ noise.standard_normal((4, 100)))
    numbers[:50] += 1e4
    statistics = in_parts(numbers, [10, 50])
    assert statistics["kurtosis"] + 3 == pytest.approx(stats.kurtosis(numbers) + 3, rel=1e-12)


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, -1e-30, 3e4])
def test_a_constant_has_no_variance_and_no_kurtosis(value):
    statistics = in_parts(np.full(40_001, np.float32(value), float), [16_384, 32_768])
    assert statistics["mean"] == np.float32(value)
    assert statistics["variance"] == 0
    assert np.isnan(statistics["kurtosis"])
    assert statistics["zeros"] == (value == 0)


def test_zeros_of_either_sign_are_counted():
    numbers = np.array([0.0, -0.0, 1e-45, 2.0, 0.0])
    assert in_parts(numbers, [2])["zeros"] == 3 / 5


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nothing_is_said_of_numbers_that_are_not_finite(bad):
    with np.errstate(invalid="ignore"):
        statistics = in_parts(np.array([1.0, 2.0, bad, 4.0]), [2])
    assert all(np.isnan(value) for value in statistics.values())


def test_nothing_is_said_of_no_numbers():
    assert all(np.isnan(value) for value in in_parts(np.empty(0), []).values())
