"""Mutual nearest neighbors, against scikit-learn's neighbors."""

import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from torch.nn import functional as F

from vitarium.core.registry import choose


def drawn(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def of(x, y, **settings):
    measure = choose("measure", "mutual_knn", **settings)
    return float(F.cosine_similarity(measure(x).double(), measure(y).double(), dim=0))


def neighbors(x, count):
    """Of each image, without itself."""
    found = NearestNeighbors(n_neighbors=count + 1, metric="cosine").fit(x).kneighbors(x)[1]
    return [set(row) - {image} for image, row in enumerate(found)]


@pytest.mark.parametrize("count", [1, 10])
def test_it_is_the_share_of_common_neighbors(count):
    x = drawn(0, 50, 8)
    y = x @ drawn(1, 8, 6) + drawn(2, 50, 6)
    common = [len(a & b) for a, b in zip(neighbors(x, count), neighbors(y, count), strict=True)]
    assert of(x, y, neighbors=count) == pytest.approx(sum(common) / (50 * count), abs=1e-6)


def test_a_turned_copy_has_the_same_neighbors():
    x = drawn(0, 40, 8)
    turn = torch.linalg.qr(drawn(1, 8, 8)).Q
    assert of(x, 7 * x @ turn) == pytest.approx(1)


def test_unrelated_features_have_as_many_in_common_as_chance_gives():
    found = [of(drawn(s, 100, 8), drawn(s + 99, 100, 8)) for s in range(10)]
    assert sum(found) / 10 == pytest.approx(10 / 99, abs=0.01)


def test_a_batch_whose_images_would_all_be_neighbors_says_nothing():
    measure = choose("measure", "mutual_knn")
    assert measure(drawn(0, 11, 4)).numel() == 0
    assert measure(drawn(0, 12, 4)).numel() == 144
