"""Evidence: products, distances and moments of all models, right, and read in one pass."""

from collections import Counter

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.spatial.distance import cdist

from vitarium.core.files import write
from vitarium.core.progress import SILENT
from vitarium.evaluation.inputs import Weights
from vitarium.lineage._statistics import MOMENTS, read_statistics, squared_distances
from vitarium.lineage.base import ModelSet
from vitarium.measures.weights import _products as engine
from vitarium.zoo._format import packing
from vitarium.zoo.checkpoint import Checkpoint

SHAPES = {"embed": (1, 5, 6), "a.weight": (9, 6), "a.bias": (9,), "norm": (40,)}


def population(count: int, seed: int = 0, shapes=SHAPES) -> list[Weights]:
    noise = torch.Generator().manual_seed(seed)
    models = []
    for number in range(count):
        tensors = {name: torch.randn(shape, generator=noise) for name, shape in shapes.items()}
        tensors["norm"] = 1 + 1e-3 * tensors["norm"]
        models.append(Weights(f"m{number}@1", tensors))
    return models


def vectors(models, *names) -> np.ndarray:
    return np.array([torch.cat([m[n].flatten() for n in names]).double().numpy() for m in models])


def check(statistics, models):
    for name in SHAPES:
        numbers = vectors(models, name)
        assert statistics.grams[name] == pytest.approx(numbers @ numbers.T, rel=1e-12, abs=1e-12)
        moments = {kind: statistics.moments[kind][name] for kind in MOMENTS}
        assert moments["mean"] == pytest.approx(numbers.mean(1), rel=1e-12, abs=1e-15)
        assert moments["variance"] == pytest.approx(numbers.var(1), rel=1e-9)
        assert moments["kurtosis"] + 3 == pytest.approx(stats.kurtosis(numbers, 1) + 3, rel=1e-9)
        assert moments["zeros"] == pytest.approx((numbers == 0).mean(1))


def test_products_and_moments_are_as_by_brute_force():
    models = population(7)
    models[2]["a.weight"][3:] = 0
    statistics = read_statistics(models, list(SHAPES), SILENT)
    assert tuple(statistics.moments) == MOMENTS
    check(statistics, models)


def test_parts_of_rows_and_columns_give_the_same(monkeypatch):
    monkeypatch.setattr(engine, "CHUNK_BYTES", 600)
    monkeypatch.setattr(engine, "RUN_BYTES", 48)
    monkeypatch.setattr(engine, "_COLUMNS", 5)
    models = population(6)
    check(read_statistics(models, list(SHAPES), SILENT), models)


def test_distances_are_over_all_tensors_or_some():
    models = population(5)
    statistics = read_statistics(models, list(SHAPES), SILENT)
    for names in (list(SHAPES), ["a.bias"], ["embed", "norm"]):
        numbers = vectors(models, *names)
        subset = None if len(names) == len(SHAPES) else names
        assert statistics.gram(subset) == pytest.approx(numbers @ numbers.T, rel=1e-12)
        expected = cdist(numbers, numbers, "sqeuclidean")
        assert statistics.squared_distances(subset) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_distances_are_never_below_zero():
    nearly = np.array([[1, 1 + 1e-15], [1 + 1e-15, 1]])
    assert (squared_distances(nearly) == 0).all()


def test_copies_are_at_distance_zero_with_equal_moments():
    first, second = population(2)
    models = [first, second, Weights("copy", dict(first))]
    statistics = read_statistics(models, list(SHAPES), SILENT)
    assert statistics.squared_distances()[0, 2] == 0
    for of in statistics.moments.values():
        assert all(values[0] == values[2] for values in of.values())


def test_only_the_tensors_that_are_asked_for_are_read(tmp_path, monkeypatch, steps):
    models = []
    for number, model in enumerate(population(3, shapes=SHAPES | {"head.weight": (4, 6)})):
        path = tmp_path / f"{number}.safetensors"
        write(path, packing.plain(dict(model), {})[0])
        models.append(Weights(model.name, Checkpoint(path, None)))
    reads = Counter()
    read = Checkpoint.__getitem__

    def counted(checkpoint, name):
        reads[checkpoint.path, name] += 1
        return read(checkpoint, name)

    monkeypatch.setattr(Checkpoint, "__getitem__", counted)
    statistics = read_statistics(models, list(SHAPES), steps)
    assert set(reads.values()) == {1}
    assert {name for _, name in reads} == set(statistics.grams) == set(SHAPES)
    assert len(reads) == 3 * len(SHAPES)
    assert steps == [("reading weights", done, 4) for done in range(5)]


def test_a_model_that_is_not_finite_is_nan_where_it_is():
    models = population(3)
    bad = Weights("bad@1", dict(models[0]) | {"a.bias": torch.tensor([torch.inf] + 8 * [1.0])})
    statistics = read_statistics([*models, bad], list(SHAPES), SILENT)
    for of in statistics.moments.values():
        assert np.isnan(of["a.bias"]).tolist() == [False, False, False, True]
        assert np.isfinite(of["a.weight"]).all()
    assert np.isnan(statistics.squared_distances()[3]).all()
    assert np.isfinite(statistics.squared_distances()[:3, :3]).all()
    assert np.isfinite(statistics.grams["a.weight"]).all()


def test_an_empty_tensor_adds_nothing():
    models = [Weights(m.name, dict(m) | {"none": torch.empty(0, 3)}) for m in population(2)]
    statistics = read_statistics(models, [*SHAPES, "none"], SILENT)
    assert (statistics.grams["none"] == 0).all()
    assert np.isnan(statistics.moments["mean"]["none"]).all()


def test_a_part_of_a_set_has_its_part_of_the_evidence():
    models = population(6)
    model_set = ModelSet(models, list(SHAPES))
    statistics, indices = model_set.statistics, [4, 1, 3]
    subset = model_set.subset(indices)
    assert subset.names == ["m4@1", "m1@1", "m3@1"]
    for name in SHAPES:
        assert (
            subset.statistics.grams[name] == statistics.grams[name][np.ix_(indices, indices)]
        ).all()
    for kind, of in subset.statistics.moments.items():
        assert all((of[name] == statistics.moments[kind][name][indices]).all() for name in SHAPES)
    check(subset.statistics, [models[index] for index in indices])
    check(
        ModelSet(models, list(SHAPES)).subset(indices).statistics,
        [models[index] for index in indices],
    )
