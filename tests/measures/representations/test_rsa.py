"""RSA of features, against scipy's distances and its Spearman correlation."""

import pytest
import torch
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr
from torch.nn import functional as F

from vitarium.core.errors import NotApplicable
from vitarium.core.registry import choose


def drawn(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def of(batches, **settings):
    measure = choose("measure", "rsa", **settings)
    one, other = (torch.cat([measure(pair[side]) for pair in batches]) for side in (0, 1))
    return float(F.cosine_similarity(one.double(), other.double(), dim=0))


def by_scipy(x, y, distance="correlation"):
    return spearmanr(*(pdist(each.double().numpy(), distance) for each in (x, y))).statistic


@pytest.mark.parametrize("distance", ["correlation", "euclidean", "cosine"])
def test_it_is_the_rank_correlation_of_distances(distance):
    x, y = drawn(0, 30, 8) + 1, drawn(1, 30, 5)
    y[:, 0] += 2 * x[:, 0]
    assert of([(x, y)], distance=distance) == pytest.approx(by_scipy(x, y, distance), abs=1e-5)


def test_equal_distances_share_their_ranks():
    x, y = (drawn(seed, 30, 3).round() for seed in (0, 1))
    expected = by_scipy(x, y, "euclidean")
    assert of([(x, y)], distance="euclidean") == pytest.approx(expected, abs=1e-5)


def test_batches_count_by_their_pairs_of_images():
    batches = [(drawn(s, n, 6), drawn(s, n, 6) + drawn(s + 9, n, 6)) for s, n in ((0, 20), (1, 5))]
    pairs = [190, 10]
    each = [by_scipy(*batch) for batch in batches]
    expected = sum(p * r for p, r in zip(pairs, each, strict=True)) / sum(pairs)
    assert of(batches) == pytest.approx(expected, abs=1e-5)


def test_a_stretched_copy_has_the_same_ranks():
    x = drawn(0, 20, 6)
    for distance, copy in (("correlation", 3 * x + 5), ("cosine", 3 * x), ("euclidean", 3 * x + 5)):
        assert of([(x, copy)], distance=distance) == pytest.approx(1, abs=1e-6)


def test_images_that_are_all_equally_far_have_no_ranks():
    with pytest.raises(NotApplicable, match="same distance"):
        choose("measure", "rsa", distance="euclidean")(torch.zeros(5, 3))
