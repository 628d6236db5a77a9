"""Maps of models: principal components, and neighbors that stay neighbors."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA

from vitarium.core.errors import InvalidInput
from vitarium.evaluation import embedding
from vitarium.evaluation.embedding import (
    classical_scaling,
    embed,
    squared_distances,
    standardized,
)

POINTS = np.random.default_rng(0).normal(size=(14, 6)) * [5, 3, 1, 1, 1, 1]


def test_of_euclidean_distances_it_is_the_pca_of_the_points():
    coordinates = classical_scaling(cdist(POINTS, POINTS) ** 2)
    assert np.abs(coordinates) == pytest.approx(np.abs(PCA(2).fit_transform(POINTS)))


def test_signs_do_not_hang_on_the_solver():
    coordinates = classical_scaling(cdist(POINTS, POINTS) ** 2)
    assert (coordinates[np.abs(coordinates).argmax(0), [0, 1]] > 0).all()


def test_squared_distances_are_those_of_scipy():
    assert squared_distances(POINTS) == pytest.approx(cdist(POINTS, POINTS) ** 2)


def test_standardized_features_have_deviation_one_or_none():
    features = np.stack([POINTS[:, 0], np.full(14, 0.1)], axis=1)
    found = standardized(features)
    assert found.std(0) == pytest.approx([1, 0])
    assert found.mean(0) == pytest.approx([0, 0])


@pytest.mark.parametrize("method", ["pca", "tsne", "umap"])
def test_groups_stay_together_and_the_same_seed_gives_the_same_map(method):
    groups = np.repeat([0, 1], 7)
    points = POINTS / 10 + 20 * groups[:, None]
    squared = cdist(points, points) ** 2
    found = embed(squared, method, seed=3)
    apart = cdist(found, found)
    np.fill_diagonal(apart, np.inf)
    assert (groups[apart.argmin(1)] == groups).all()
    assert np.array_equal(found, embed(squared, method, seed=3))


def test_too_few_models_or_copies_have_no_map():
    assert embed(np.ones((2, 2)) - np.eye(2), "pca") is None
    assert embed(np.ones((5, 5)) - np.eye(5), "tsne") is None
    assert embed(np.zeros((9, 9)), "tsne") is None


def test_without_umap_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setattr(embedding, "find_spec", lambda name: None)
    with pytest.raises(InvalidInput, match=r"pip install 'vitarium\[umap\]'"):
        embedding.check_installed("umap")
    embedding.check_installed("tsne")
