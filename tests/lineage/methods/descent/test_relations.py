"""How three models stand to each other follows from inner products as it does from the weights."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitarium.lineage.methods.descent._relations import Geometry

LAYERS = (900, 1600, 400, 2500, 1200, 800)
"""Numbers of each layer."""


def geometry(models) -> Geometry:
    """Of models, each a list of layers."""
    layers = [np.stack(layer) for layer in zip(*models, strict=True)]
    return Geometry(np.stack([layer @ layer.T for layer in layers]))


def cosine(x, y) -> float:
    return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))


def random(noise, size: float = 1.0, layers=LAYERS):
    return [size * noise.normal(size=count) for count in layers]


def plus(*parts):
    return [sum(layers) for layers in zip(*parts, strict=True)]


def times(share, model):
    shares = np.broadcast_to(share, len(model))
    return [share * layer for share, layer in zip(shares, model, strict=True)]


def odds(parent, child, *models) -> np.ndarray:
    """Log odds that others descend from the child, and did not go another way."""
    relation = geometry([parent, child, *models]).relation(0, 1, np.arange(2, 2 + len(models)))
    return relation.child_log_density() - relation.sibling_log_density


seeds = st.integers(0, 2**31)


@settings(deadline=None, max_examples=20)
@given(seed=seeds, layers=st.lists(st.integers(2, 30), min_size=1, max_size=5))
def test_relations_are_those_of_the_steps_themselves(seed, layers):
    noise = np.random.default_rng(seed)
    models = [random(noise, 10 ** noise.uniform(-1, 1), layers) for _ in range(5)]
    relation = geometry(models).relation(1, 3, np.array([0, 2, 4]))
    parent, child = models[1], models[3]
    for index, model in enumerate((0, 2, 4)):
        first = [a - p for a, p in zip(child, parent, strict=True)]
        then = [b - a for b, a in zip(models[model], child, strict=True)]
        total = [b - p for b, p in zip(models[model], parent, strict=True)]
        flat = [np.concatenate(step) for step in (first, then, total)]
        lengths = np.array(
            [np.linalg.norm(x) * np.linalg.norm(y) for x, y in zip(first, then, strict=True)]
        )
        cosines = np.array([cosine(x, y) for x, y in zip(first, then, strict=True)])
        mean = np.average(cosines, weights=lengths)
        spread = np.average((cosines - mean) ** 2, weights=lengths) ** 0.5
        assert relation.cosine[index] == pytest.approx(cosine(flat[0], flat[1]), abs=1e-9)
        assert relation.correlation[index] == pytest.approx(cosine(flat[0], flat[2]), abs=1e-9)
        ratio = np.linalg.norm(flat[0]) / np.linalg.norm(flat[1])
        assert relation.ratio[index] == pytest.approx(ratio, rel=1e-9)
        assert relation.spread[index] == pytest.approx(spread, abs=1e-7)


def test_squared_distances_are_those_of_every_layer_and_their_sum():
    noise = np.random.default_rng(0)
    models = [random(noise) for _ in range(4)]
    distances = geometry(models)
    expected = [
        [[((a - b) ** 2).sum() for a in layer] for b in layer]
        for layer in zip(*models, strict=True)
    ]
    assert distances.layers == pytest.approx(np.array(expected), abs=1e-8)
    assert distances.squares == pytest.approx(np.sum(expected, axis=0), abs=1e-8)


def test_models_in_one_place_have_relations_that_are_numbers():
    model = random(np.random.default_rng(0))
    relation = geometry([model, model, model]).relation(0, 1, np.arange(3))
    for values in (relation.cosine, relation.correlation, relation.ratio, relation.spread):
        assert np.isfinite(values).all()
    for density in (
        relation.child_log_density(),
        relation.sibling_log_density,
        relation.root_log_density,
    ):
        assert np.isfinite(density).all()


@settings(deadline=None, max_examples=15)
@given(seed=seeds, first=st.floats(0.1, 1), then=st.floats(0.1, 1))
def test_steps_at_right_angles_are_a_descent_whatever_their_lengths(seed, first, then):
    noise = np.random.default_rng(seed)
    parent = random(noise)
    child = plus(parent, random(noise, first))
    assert odds(parent, child, plus(child, random(noise, then)))[0] > 0


@settings(deadline=None, max_examples=15)
@given(seed=seeds, size=st.floats(0.2, 1), ratio=st.floats(0.5, 1.5))
def test_independent_steps_from_one_parent_are_far_less_a_descent(seed, size, ratio):
    noise = np.random.default_rng(seed)
    parent, step = random(noise), random(noise, size)
    child = plus(parent, random(noise, size * ratio))
    sibling, grandchild = odds(parent, child, plus(parent, step), plus(child, step))
    assert sibling < grandchild - 4


@settings(deadline=None, max_examples=15)
@given(seed=seeds, size=st.floats(0.2, 1), ratio=st.floats(0.7, 1))
def test_a_step_that_is_like_a_shorter_one_in_some_layers_is_apart_from_it(seed, size, ratio):
    noise = np.random.default_rng(seed)
    parent, common = random(noise), random(noise, size)
    shares = np.array([0.8, 0.1, 0.6, 0.0, 0.9, 0.3])
    child, sibling = (
        plus(
            parent, times(length * shares**0.5, common), times(length * scale, random(noise, size))
        )
        for length, scale in ((ratio, (1 - shares) ** 0.5), (1, (1 - shares) ** 0.5))
    )
    assert odds(parent, child, sibling)[0] < -1


def test_a_model_is_rather_let_down_to_its_parent_than_to_its_parents_sibling():
    noise = np.random.default_rng(1)
    root = random(noise)
    child, sibling = (plus(root, random(noise, 0.3)) for _ in range(2))
    grandchild = plus(child, random(noise, 0.2))
    assert odds(root, child, grandchild)[0] > 0 > odds(root, sibling, grandchild)[0]


def test_twins_whose_steps_are_alike_stand_side_by_side():
    noise = np.random.default_rng(2)
    parent, common = random(noise), random(noise, 0.3)
    twins = [plus(parent, common, random(noise, 0.05)) for _ in range(2)]
    first, second = odds(parent, twins[0], twins[1])[0], odds(parent, twins[1], twins[0])[0]
    assert max(first, second) < 0


def test_a_small_sibling_on_the_path_of_a_large_one_in_some_layers_is_no_parent_of_it():
    noise = np.random.default_rng(3)
    parent, path = random(noise), random(noise, 0.5)
    on_path = times([0.4, 0.0, 0.5, 0.0, 0.3, 0.1], path)
    small = plus(parent, on_path, random(noise, 0.1))
    assert odds(parent, small, plus(parent, path))[0] < 0
    # what goes on from it, in all layers alike, descends from it
    assert odds(parent, small, plus(small, random(noise, 0.5)))[0] > 0


def test_that_all_layers_agree_never_speaks_against_a_descent():
    """Of large layers cosines hardly vary, whatever happened."""
    noise = np.random.default_rng(4)
    densities = []
    for layers in ([400] * 6, [40_000] * 6):
        parent = random(noise, 1, layers)
        child = plus(parent, random(noise, 0.3, layers))
        grandchild = plus(child, random(noise, 0.3, layers))
        zero = [np.zeros(count) for count in layers]
        models = geometry([zero, parent, child, grandchild])
        densities.append(
            [
                models.relation(1, 2, np.array([3])).child_log_density()[0],
                models.relation(0, 1, np.array([3])).root_log_density[0],
            ]
        )
    small, large = np.array(densities)
    assert (large >= small - 0.5).all()


def test_more_of_the_same_training_goes_on_and_a_new_one_does_not():
    noise = np.random.default_rng(5)
    start, step = random(noise), random(noise, 0.3)
    epoch = plus(start, step)
    later = plus(epoch, times(0.5, step), random(noise, 0.1))
    new = plus(epoch, random(noise, 0.2))
    relation = geometry([start, epoch, later, new]).relation(0, 1, np.array([2, 3]))
    assert relation.continues.tolist() == [True, False]


def test_what_follows_a_root_is_at_right_angles_to_it_and_what_follows_a_child_is_not():
    noise = np.random.default_rng(6)
    zero, root = [np.zeros(count) for count in LAYERS], random(noise)
    children = [plus(root, random(noise, 0.5)) for _ in range(4)]
    models = geometry([zero, root, *children])
    of_root = models.relation(0, 1, np.arange(2, 6)).root_log_density.sum()
    of_child = models.relation(0, 2, np.array([1, 3, 4, 5])).root_log_density.sum()
    assert of_root > of_child + 5
