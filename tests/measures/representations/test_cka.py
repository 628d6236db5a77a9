"""CKA of features: against Nguyen et al.'s formula in float64, pytorch-cka, and closed forms."""

import pytest
import torch
from cka import cka_from_features
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from vitarium.core.registry import choose
from vitarium.measures.representations.cka import gram


def drawn(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def hsic(one, other):
    """Nguyen et al. 2021, eq. 3, as it is written."""
    n = len(one)
    k, m = one.clone().fill_diagonal_(0), other.clone().fill_diagonal_(0)
    ones = torch.ones(n, 1, dtype=k.dtype)
    middle = (ones.T @ k @ ones) * (ones.T @ m @ ones) / ((n - 1) * (n - 2))
    last = 2 / (n - 2) * (ones.T @ k @ m @ ones)
    return float((torch.trace(k @ m) + middle - last) / (n * (n - 3)))


def linear(x):
    return x @ x.T


def rbf(x, bandwidth):
    """Kornblith et al. 2019, Sec. 3, from differences of images."""
    distance = (x[:, None] - x).norm(dim=-1)
    median = distance[tuple(torch.triu_indices(len(x), len(x), 1))].median()
    return torch.exp(-(distance**2) / (2 * (bandwidth * median) ** 2))


def by_hand(batches, kernel=linear):
    """Eq. 2, in float64: of batches [(features, other features), ...]"""
    kernels = [[kernel(each.double()) for each in pair] for pair in batches]
    kl, kk, ll = (sum(hsic(p[i], p[j]) for p in kernels) for i, j in ((0, 1), (0, 0), (1, 1)))
    return kl / (kk * ll) ** 0.5


def of(batches, **settings):
    """By the vectors of the measure."""
    measure = choose("measure", "cka", **settings)
    one, other = (torch.cat([measure(pair[side]) for pair in batches]) for side in (0, 1))
    return float(F.cosine_similarity(one.double(), other.double(), dim=0))


def related(seed, n=40, offset=0.0):
    x = drawn(seed, n, 12)
    return x + offset, x @ drawn(seed + 1, 12, 7) + drawn(seed + 2, n, 7) + offset


def test_it_is_the_formula_of_the_paper_over_batches_of_different_size():
    batches = [related(0), related(10, n=11), related(20, n=4)]
    assert of(batches) == pytest.approx(by_hand(batches), abs=1e-6)
    assert of(batches[:1]) == pytest.approx(by_hand(batches[:1]), abs=1e-6)


def test_a_far_off_mean_costs_no_digits():
    batches = [related(0, offset=300.0)]
    assert of(batches) == pytest.approx(by_hand(batches), abs=1e-4)


def test_it_is_that_of_another_package():
    x, y = related(3)
    assert of([(x, y)]) == pytest.approx(float(cka_from_features(x, y)), abs=1e-5)


@pytest.mark.parametrize("bandwidth", [0.2, 0.8])
def test_a_gaussian_kernel_is_as_wide_as_its_share_of_the_median_distance(bandwidth):
    batches = [related(0), related(5, n=20)]
    found = of(batches, kernel="rbf", bandwidth=bandwidth)
    expected = by_hand(batches, kernel=lambda x: rbf(x, bandwidth))
    assert found == pytest.approx(expected, abs=1e-5)


@settings(deadline=None, max_examples=10)
@given(
    seed=st.integers(0, 999),
    scale=st.floats(1e-3, 1e3),
    kernel=st.sampled_from(["linear", "rbf"]),
)
def test_rotating_and_scaling_and_moving_features_changes_nothing(seed, scale, kernel):
    x, y = related(seed)
    turn = torch.linalg.qr(drawn(seed + 3, 12, 12)).Q
    assert of([(x, x @ turn * scale + 1)], kernel=kernel) == pytest.approx(1, abs=1e-4)
    turned = of([(x @ turn * scale, y)], kernel=kernel)
    assert turned == pytest.approx(of([(x, y)], kernel=kernel), abs=1e-4)
    assert of([(y, x)], kernel=kernel) == pytest.approx(of([(x, y)], kernel=kernel), abs=1e-6)


def test_unrelated_features_are_about_zero_on_both_sides_of_it():
    """Not so for the biased estimator, which gives 0.7 for 64 images of 128 channels."""
    found = [of([(drawn(seed, 64, 128), drawn(seed + 500, 64, 128))]) for seed in range(40)]
    assert abs(sum(found)) / len(found) < 0.01
    assert min(found) < 0 < max(found)


def test_the_size_of_batches_does_not_matter_on_average():
    x, y = related(0, n=2400)
    whole = of([(x, y)])
    for size in (8, 50):
        batches = list(zip(x.split(size), y.split(size), strict=True))
        assert of(batches) == pytest.approx(whole, abs=0.02)


@pytest.mark.parametrize("n", [4, 255, 256, 301])
def test_the_gram_matrix_is_that_of_all_pairs(n):
    x = drawn(0, n, 9)
    assert torch.allclose(gram(x), x @ x.T, atol=1e-5)
