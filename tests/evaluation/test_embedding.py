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
    embed_features,
    principal_components,
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


@pytest.mark.parametrize("shape", [(40, 6), (6, 40), (14, 14), (20, 1)])
def test_principal_components_are_scikit_learns(shape):
    features = np.random.default_rng(1).normal(size=shape) * np.linspace(3, 1, shape[1])
    scores, explained = principal_components(features, 3)
    pca = PCA(min(3, *shape))
    expected = pca.fit_transform(features)
    number = expected.shape[1]
    assert np.abs(scores[:, :number]) == pytest.approx(np.abs(expected), abs=1e-9)
    assert explained[:number] == pytest.approx(pca.explained_variance_ratio_)
    assert not scores[:, number:].any()
    assert not explained[number:].any()


def test_features_lie_as_their_distances_do():
    plane = embed_features(POINTS, "pca")
    assert plane.coordinates == pytest.approx(embed(cdist(POINTS, POINTS) ** 2, "pca"))
    assert 0.5 < plane.explained.sum() < 1
    for method in ("tsne", "umap"):
        plane = embed_features(POINTS, method)
        assert plane.coordinates.shape == (14, 2)
        assert np.isfinite(plane.coordinates).all()
        assert plane.explained is None


def test_features_of_groups_stay_in_groups():
    centers = np.repeat(np.eye(3) * 50, 10, axis=0)
    features = centers + np.random.default_rng(0).normal(size=(30, 3))
    for method in ("pca", "tsne"):
        distances = cdist(*[embed_features(features, method).coordinates] * 2)
        nearest = (distances + np.diag(np.full(30, np.inf))).argmin(1)
        assert (nearest // 10 == np.arange(30) // 10).all()


def test_features_that_do_not_differ_or_are_few_have_no_plane():
    assert embed_features(np.ones((8, 3)), "pca") is None
    assert embed_features(POINTS[:2], "pca") is None
    assert embed_features(POINTS[:5], "tsne") is None
