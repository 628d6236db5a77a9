"""Sketches estimate distances without bias, each model for itself; their tree is single linkage."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import linkage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist

from vitarium.core.errors import InvalidInput
from vitarium.evaluation.inputs import Weights
from vitarium.lineage import _clusters as sketches
from vitarium.lineage._clusters import sketch_weights, spanning_tree
from vitarium.lineage.base import ModelSet

SHAPES = {"embed": (1, 7, 24), "a.weight": (72, 24), "b.weight": (24, 96), "a.bias": (72,)}
MATRICES = [name for name, shape in SHAPES.items() if len(shape) > 1]


def population(count: int, seed: int = 0) -> list[Weights]:
    noise = torch.Generator().manual_seed(seed)
    return [
        Weights(f"m{k}@1", {name: torch.randn(s, generator=noise) for name, s in SHAPES.items()})
        for k in range(count)
    ]


def model_set(models) -> ModelSet:
    return ModelSet(models, list(SHAPES))


def vectors(models, names=MATRICES) -> np.ndarray:
    return np.array(
        [torch.cat([model[n].flatten() for n in names]).double().numpy() for model in models]
    )


@pytest.fixture(params=[16_381, 101])
def width(request, monkeypatch):
    """Tensors that fit where they are folded, and larger ones."""
    monkeypatch.setattr(sketches, "_FOLD_WIDTH", request.param)


def test_inner_products_have_no_bias_and_the_error_that_is_said(width, monkeypatch):
    models = population(3)
    models[1] = Weights("near", {n: t + 0.1 * models[1][n] for n, t in models[0].items()})
    true = vectors(models) @ vectors(models).T
    size, draws = 24, 400
    products = []
    for seed in range(draws):
        monkeypatch.setattr(sketches, "derive", _derived_from(seed))
        sketch = sketch_weights(model_set(models), size)
        products.append(sketch @ sketch.T)
    squares = true.diagonal()
    # as many numbers as 101 are folded together add their own collisions
    spread = np.sqrt((np.outer(squares, squares) + true**2) * (1 / size + 1 / sketches._FOLD_WIDTH))
    off = (np.mean(products, 0) - true) / spread
    assert np.abs(off).max() < 4 / np.sqrt(draws)
    ratio = np.std(products, 0) / spread
    assert ratio.max() < 1.15
    assert ratio.min() > 0.8


def _derived_from(base_seed: int):
    from vitarium.core.seeds import derive

    return lambda seed, *names: derive(base_seed, *names)


def test_squared_distances_are_estimated_within_their_error():
    models = population(30)
    size = 1024
    sketch = sketch_weights(model_set(models), size)
    pairs = np.triu_indices(30, 1)
    true = cdist(vectors(models), vectors(models), "sqeuclidean")[pairs]
    off = cdist(sketch, sketch, "sqeuclidean")[pairs] / true - 1
    assert np.abs(off).max() < 5 * np.sqrt(2 / size)


def test_a_model_alone_has_the_sketch_that_it_has_in_a_set(width):
    models = population(5)
    sketch = sketch_weights(model_set(models))
    assert sketch.shape == (5, 512)
    assert sketch.dtype == np.float64
    for index in range(5):
        assert (sketch_weights(model_set([models[index]])) == sketch[index]).all()
    assert (sketch_weights(model_set(models[::-1])) == sketch[::-1]).all()


def test_a_sketch_is_the_sum_of_its_tensors_and_of_matrices_by_default():
    models = population(2)
    parts = [sketch_weights(model_set(models), 64, [name]) for name in MATRICES]
    assert sketch_weights(model_set(models), 64) == pytest.approx(sum(parts), rel=1e-12, abs=1e-12)
    with_bias = sum(parts) + sketch_weights(model_set(models), 64, ["a.bias"])
    assert sketch_weights(model_set(models), 64, list(SHAPES)) == pytest.approx(
        with_bias, abs=1e-12
    )


def test_sketches_are_linear(width):
    first, second = population(2)
    mixed = Weights("both", {name: 0.5 * first[name] + 0.5 * second[name] for name in SHAPES})
    sketch = sketch_weights(model_set([first, second, mixed]), 100)
    assert sketch[2] == pytest.approx(sketch[:2].mean(0), abs=1e-5)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_the_sketch_of_a_model_that_is_not_finite_is_nan(bad):
    models = population(3)
    models[1]["a.weight"][5, 5] = bad
    assert np.isnan(sketch_weights(model_set(models), 64)).all(1).tolist() == [False, True, False]


def test_a_sketch_of_nothing_is_refused():
    models = population(2)
    with pytest.raises(InvalidInput, match="0 numbers"):
        sketch_weights(model_set(models), 0)
    with pytest.raises(InvalidInput, match="0 tensors"):
        sketch_weights(ModelSet(models, ["a.bias"]), 64)


def test_progress_is_told_model_by_model(steps):
    sketch_weights(ModelSet(population(3), list(SHAPES), steps), 16)
    assert steps == [("sketching weights", done, 3) for done in range(4)]


@settings(deadline=None, max_examples=30)
@given(
    models=st.integers(2, 40),
    size=st.integers(1, 6),
    copies=st.integers(0, 10),
    rows=st.integers(1, 50),
    seed=st.integers(0, 2**31),
)
def test_the_spanning_tree_is_single_linkage_of_all_pairs(models, size, copies, rows, seed):
    noise = np.random.default_rng(seed)
    sketch = noise.standard_normal((models, size))
    sketch[noise.integers(0, models, copies)] = sketch[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sketches, "_CHUNK_MODELS", rows)
        edges, lengths = spanning_tree(sketch)
    assert edges.shape == (models - 1, 2)
    assert lengths == pytest.approx(linkage(sketch, "single")[:, 2] ** 2, rel=1e-9, abs=1e-20)
    assert lengths == pytest.approx(np.square(sketch[edges[:, 0]] - sketch[edges[:, 1]]).sum(1))
    graph = coo_matrix((np.ones(models - 1), edges.T), shape=(models, models))
    assert connected_components(graph)[0] == 1


def test_the_spanning_tree_of_one_model_has_no_edge():
    edges, lengths = spanning_tree(np.ones((1, 3)))
    assert edges.shape == (0, 2)
    assert lengths.shape == (0,)


def test_the_spanning_tree_of_bad_sketches_is_refused():
    with pytest.raises(InvalidInput, match="set its model aside"):
        spanning_tree(np.array([[1.0, 2.0], [np.nan, np.nan]]))
