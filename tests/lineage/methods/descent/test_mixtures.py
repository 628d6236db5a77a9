"""Mixtures are found from inner products alone, with their ingredients; nothing else is one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from vitarium.lineage.methods.descent._mixtures import MIN_SHARE, best_mixture, mixtures

SIZE = 3000


def stored(vectors) -> np.ndarray:
    """As float32 files hold them."""
    return np.asarray(vectors, dtype=np.float32).astype(np.float64)


def gram(vectors) -> np.ndarray:
    return stored(vectors) @ stored(vectors).T


def tree(noise, parents: int = 2, children: int = 4, grandchildren: int = 2) -> np.ndarray:
    """A random walk in weight space: trees of three levels, steps of many lengths."""
    vectors = []
    for _ in range(parents):
        root = noise.normal(size=SIZE)
        vectors.append(root)
        for _ in range(children):
            child = root + 10 ** noise.uniform(-3, -0.5) * noise.normal(size=SIZE)
            vectors.append(child)
            for _ in range(grandchildren):
                vectors.append(child + 10 ** noise.uniform(-3, -0.5) * noise.normal(size=SIZE))
    return stored(vectors)


def shares_of(noise, count: int) -> np.ndarray:
    shares = noise.dirichlet(np.full(count, 3.0))
    return 0.9 * shares + 0.1 / count  # an ingredient, not a trace of one


seeds = st.integers(0, 2**31)


@settings(deadline=None, max_examples=25)
@given(seed=seeds, counts=st.lists(st.integers(2, 8), min_size=1, max_size=5))
def test_soups_are_found_with_their_ingredients_and_shares(seed, counts):
    noise = np.random.default_rng(seed)
    models = tree(noise)
    truth = {}
    for number, count in enumerate(counts):
        which = noise.choice(len(models), count, replace=False)
        truth[len(models) + number] = dict(
            zip(map(int, which), shares_of(noise, count), strict=True)
        )
    soups = [sum(share * models[i] for i, share in of.items()) for of in truth.values()]
    detected = mixtures(gram([*models, *soups]))
    assert detected.keys() == truth.keys()
    for model, mixture in detected.items():
        assert mixture.shares == pytest.approx(truth[model], abs=1e-3)
        assert sum(mixture.shares.values()) == pytest.approx(1)
        assert mixture.ratio < 0.01


@settings(deadline=None, max_examples=25)
@given(
    seed=seeds,
    parents=st.integers(1, 3),
    children=st.integers(1, 12),
    grandchildren=st.integers(0, 3),
)
def test_no_model_of_a_random_walk_is_taken_for_a_mixture(seed, parents, children, grandchildren):
    models = tree(np.random.default_rng(seed), parents, children, grandchildren)
    assert mixtures(gram(models)) == {}


def test_a_parent_amid_many_children_is_none():
    noise = np.random.default_rng(0)
    parent = noise.normal(size=SIZE)
    children = parent + 0.01 * noise.normal(size=(100, SIZE))
    inner = gram([parent, *children])
    best = best_mixture(inner, 0, range(101))
    assert best.residual < 0.12 * best.nearest  # it does lie near to their mean
    assert best.ratio > 0.85
    assert mixtures(inner) == {}


@settings(deadline=None, max_examples=15)
@given(seed=seeds, size=st.integers(3, 12), count=st.integers(2, 8))
def test_the_best_mixture_is_that_of_least_squares_on_the_weights(seed, size, count):
    noise = np.random.default_rng(seed)
    vectors = stored(
        noise.normal(size=(count + 1, size)) * 10 ** noise.uniform(-1, 1, (count + 1, 1))
    )
    detected = best_mixture(vectors @ vectors.T, 0, range(count + 1))
    differences = (vectors[1:] - vectors[0]).T
    scale = np.linalg.norm(differences, axis=0).min()
    solved, _ = nnls(np.vstack([differences / scale, np.ones(count)]), np.append(np.zeros(size), 1))
    solved /= solved.sum()
    if (solved[solved > 0] > MIN_SHARE).all():
        residual = np.linalg.norm(differences @ solved)
        assert detected.residual == pytest.approx(residual, rel=1e-6, abs=1e-6 * scale)
        if residual > 1e-3 * scale:  # else the mixture is one of many
            given = {k + 1: share for k, share in enumerate(solved) if share > 0}
            assert detected.shares == pytest.approx(given, abs=1e-5)


@pytest.mark.parametrize("position", [0.02, 0.1, 0.5, 0.9, 0.98])
def test_a_model_on_the_line_from_parent_to_child_has_both_as_parents(position):
    models = tree(np.random.default_rng(1))
    between = (1 - position) * models[0] + position * models[1]
    detected = mixtures(gram([*models, between]))
    assert detected.keys() == {len(models)}
    assert detected[len(models)].shares == pytest.approx({0: 1 - position, 1: position}, abs=1e-4)


def test_an_average_of_epochs_is_a_mixture_of_them():
    noise = np.random.default_rng(2)
    epochs = np.cumsum(0.05 * noise.normal(size=(8, SIZE)), axis=0) + noise.normal(size=SIZE)
    detected = mixtures(gram([*epochs, stored(epochs[4:]).mean(0)]))
    assert detected.keys() == {8}
    assert detected[8].shares == pytest.approx(dict.fromkeys(range(4, 8), 0.25))


def test_a_soup_of_soups_is_expressed_by_what_is_no_soup():
    models = tree(np.random.default_rng(3))
    first, second = models[[1, 4]].mean(0), models[[4, 7]].mean(0)
    of_both = (stored([first])[0] + stored([second])[0]) / 2
    detected = mixtures(gram([of_both, *models, first, second]))
    assert {model: mixture.shares for model, mixture in detected.items()} == {
        0: {2: pytest.approx(0.25), 5: pytest.approx(0.5), 8: pytest.approx(0.25)},
        len(models) + 1: {2: pytest.approx(0.5), 5: pytest.approx(0.5)},
        len(models) + 2: {5: pytest.approx(0.5), 8: pytest.approx(0.5)},
    }


def test_the_child_of_a_soup_is_none_itself():
    noise = np.random.default_rng(4)
    models = noise.normal(size=SIZE) + 0.3 * noise.normal(size=(4, SIZE))
    soup = models[:3].mean(0)
    child = soup + 0.02 * noise.normal(size=SIZE)
    assert mixtures(gram([*models, soup, child])).keys() == {4}
    assert mixtures(gram([*models, child])) == {}
    far = mixtures(gram([*models, child]), tolerance=0.3)  # the soup itself is missing
    assert far.keys() == {4}
    assert far[4].shares == pytest.approx(dict.fromkeys(range(3), 1 / 3), abs=0.01)
    assert far[4].residual == pytest.approx(0.02 * SIZE**0.5, rel=0.1)


def test_copies_are_no_mixtures_and_share_what_they_give():
    models = tree(np.random.default_rng(5), parents=1)
    soup = models[[1, 2]].mean(0)
    detected = mixtures(gram([*models, models[1], models[0], soup, soup]))
    copy, soups = len(models), {len(models) + 2, len(models) + 3}
    assert detected.keys() == soups
    for model in soups:
        assert detected[model].shares == pytest.approx({1: 0.25, copy: 0.25, 2: 0.5})


def test_the_ends_of_an_extrapolation_are_no_mixtures_of_what_is_between():
    models = tree(np.random.default_rng(6), parents=1)
    beyond = 2 * models[1] - models[0]
    assert mixtures(gram([*models, beyond])).keys() == {1}
    # a model that only weights below zero could give
    outside = models[1] + models[2] - models[0]
    assert mixtures(gram([*models, outside])) == {}


@settings(deadline=None, max_examples=10)
@given(seed=seeds)
def test_relabelled_models_have_the_relabelled_mixtures(seed):
    noise = np.random.default_rng(seed)
    models = tree(noise)
    soups = [models[noise.choice(len(models), 3, replace=False)].mean(0) for _ in range(3)]
    soups.append((soups[0] + soups[1]) / 2)
    inner = gram([*models, *soups, models[2]])
    order = noise.permutation(len(inner))
    new_index = {int(old): new for new, old in enumerate(order)}
    plain, reordered = mixtures(inner), mixtures(inner[np.ix_(order, order)])
    assert {new_index[model] for model in plain} == reordered.keys()
    for model, mixture in plain.items():
        expected = {new_index[ingredient]: share for ingredient, share in mixture.shares.items()}
        assert reordered[new_index[model]].shares == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("bits", [10, 7])
def test_soups_in_half_precision_are_found_where_their_rounding_is_known(bits):
    noise = np.random.default_rng(7)
    models = tree(noise, children=6)
    ingredients = [noise.choice(len(models), 3, replace=False) for _ in range(6)]
    soups = np.array([models[which].mean(0) for which in ingredients])
    step = 2.0 ** (np.frexp(soups)[1] - 1 - bits)
    soups = np.round(soups / step) * step
    rounding = np.append(np.zeros(len(models)), (step**2 / 12).sum(1))
    detected = mixtures(gram([*models, *soups]), rounding=rounding)
    assert detected.keys() == set(range(len(models), len(models) + 6))
    for number, which in enumerate(ingredients):
        assert detected[len(models) + number].shares.keys() == set(map(int, which))


@pytest.mark.parametrize("count", [0, 1, 2])
def test_fewer_than_three_models_hold_no_mixture(count):
    vectors = np.random.default_rng(8).normal(size=(count, 10))
    assert mixtures(vectors @ vectors.T) == {}


def test_a_copy_is_the_best_mixture_for_its_original():
    models = tree(np.random.default_rng(9), parents=1)
    best = best_mixture(gram([*models, models[3]]), 3, range(len(models) + 1))
    assert best.shares == {len(models): 1}
    assert best.residual == best.nearest == 0
    assert not best.is_mixture()
