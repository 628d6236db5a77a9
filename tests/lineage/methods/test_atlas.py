"""The Model Atlas' rule: the nearest earlier model, the oldest in a fan; copies are leaves."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitarium.core.errors import InvalidInput, UnknownName
from vitarium.core.registry import choose
from vitarium.evaluation.inputs import Weights
from vitarium.lineage.base import ModelSet


def recover(model_set, trees=None, **options):
    return choose("lineage", "atlas", **options)(model_set, trees)


def parents(forest) -> dict[str, str | None]:
    return {model: next(iter(of), None) for model, of in forest.parents.items()}


def points(**positions: list[float]) -> ModelSet:
    models = [Weights(n, {"w": torch.tensor([p]).float()}) for n, p in positions.items()]
    return ModelSet(models, ["w"])


def depths(grown) -> dict[str, float]:
    return {name: name.count(".") for name in grown.parents}


def test_known_times_make_every_tree_of_random_steps_right(lineage_trees):
    grown = lineage_trees.grow(0, trees=3, fans=(3, 2, 1), steps=(0.3, 0.3, 0.3))
    forest = recover(grown.model_set, times=depths(grown))
    assert parents(forest) == grown.parents
    assert set(forest.roots.values()) == {1}
    assert forest.notes == []


def test_the_norm_stands_in_for_time_since_random_steps_let_it_grow(lineage_trees):
    grown = lineage_trees.grow(0, trees=3, fans=(3, 2))
    forest = recover(grown.model_set)
    assert parents(forest) == grown.parents
    assert forest.notes == ["the norm of weights stands in for the time, which is not known"]
    assert all(0.5 <= confidence < 0.6 for confidence in forest.roots.values())


def test_the_parent_is_the_nearest_earlier_model():
    model_set = points(a=[0, 1], b=[4, 1], c=[5, 1], d=[4.6, 1])
    forest = recover(model_set, 1, times={"a": 0, "b": 1, "d": 2, "c": 3})
    assert parents(forest) == {"a": None, "b": "a", "d": "b", "c": "d"}
    to_d = forest.parents["d"]["b"]
    assert to_d.confidence == pytest.approx(4.6 / (4.6 + 0.6))


def test_a_model_as_early_as_the_root_is_its_child():
    forest = recover(points(a=[0, 1], b=[1, 1], c=[1.1, 1]), 1, times={"a": 0, "b": 0, "c": 0})
    assert parents(forest) == {"a": None, "b": "a", "c": "a"}
    assert {edge.confidence for edge in forest.edges} == {0.5}


def fan_or_snake(times: dict[str, float], **options):
    """Corners of a simplex: all are as far from each other, the last one about as far."""
    corners = dict(zip("abcd", np.eye(5)[:4].tolist(), strict=True))
    corners["e"] = [0.0, 0.0, 0.01, 0.02, 1.0]
    return recover(points(**corners), 1, times=times, **options).parents["e"]


def test_where_distances_are_alike_the_parent_is_the_oldest_of_the_nearest():
    times = {"a": 0, "b": 3, "c": 1, "d": 2, "e": 9}
    assert list(fan_or_snake(times)) == ["a"]


def test_where_distances_differ_by_more_than_the_spread_it_is_the_nearest():
    times = {"a": 0, "b": 3, "c": 1, "d": 2, "e": 9}
    assert list(fan_or_snake(times, spread=0.001)) == ["d"]


def test_where_distances_grow_with_time_it_is_the_nearest_as_in_saved_epochs():
    times = {"a": 0, "b": 1, "c": 2, "d": 3, "e": 4}
    assert list(fan_or_snake(times)) == ["d"]
    assert list(fan_or_snake(times, snake=100)) == ["a"]


def test_a_copy_has_the_parent_of_its_original_and_no_children():
    model_set = points(copy=[1, 1], child=[1.1, 1], a=[0, 1], b=[1, 1])
    forest = recover(model_set, 1, times={"a": 0, "b": 1, "copy": 2, "child": 3})
    assert parents(forest) == {"a": None, "b": "a", "copy": "a", "child": "b"}
    assert forest.tied == [["b", "copy"]]


def test_a_copy_of_the_root_is_its_child():
    model_set = points(a=[0, 1], copy=[0, 1], child=[1, 1])
    forest = recover(model_set, 1, times={"a": 0, "copy": 1, "child": 2})
    assert parents(forest) == {"a": None, "copy": "a", "child": "a"}
    assert forest.parents["copy"]["a"].kind == "copy"


def test_a_quantized_model_is_a_leaf():
    noise = torch.Generator().manual_seed(0)
    root = torch.randn(64, 64, generator=noise)
    child = root + 0.2 * torch.randn(64, 64, generator=noise)
    rounded = (child * 30).round() / 30
    grandchild = rounded + 0.01 * torch.randn(64, 64, generator=noise)
    tensors = {"root": root, "child": child, "rounded": rounded, "grandchild": grandchild}
    assert len(rounded.unique()) <= 256
    model_set = ModelSet([Weights(n, {"w": t}) for n, t in tensors.items()], ["w"])
    times = {name: float(time) for time, name in enumerate(tensors)}
    forest = recover(model_set, 1, times=times)
    assert parents(forest) == {
        "root": None,
        "child": "root",
        "rounded": "child",
        "grandchild": "child",
    }
    assert {edge.child: edge.kind for edge in forest.edges}["rounded"] == "quantized"


def test_where_all_are_quantized_the_earliest_is_the_root():
    noise = torch.Generator().manual_seed(0)
    tensors = [torch.randint(-9, 9, (64, 64), generator=noise).float() for _ in range(3)]
    model_set = ModelSet([Weights(f"m{k}", {"w": t}) for k, t in enumerate(tensors)], ["w"])
    forest = recover(model_set, 1, times={"m0": 5, "m1": 1, "m2": 3})
    assert parents(forest) == {"m0": "m1", "m1": None, "m2": "m1"}


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**31))
def test_order_does_not_matter(seed, lineage_trees):
    grown = lineage_trees.grow(seed % 10, trees=2, fans=(3, 1))
    models = list(grown.model_set.models)
    order = np.random.default_rng(seed).permutation(len(models))
    shuffled = ModelSet([models[index] for index in order], grown.model_set.tensors)
    for options in ({}, {"times": depths(grown)}):
        forest, again = recover(grown.model_set, **options), recover(shuffled, **options)
        assert parents(forest) == parents(again)
        assert forest.roots == pytest.approx(again.roots)


def test_times_are_of_all_models_or_of_none():
    model_set = points(alpha=[0, 1], beta=[1, 1])
    with pytest.raises(InvalidInput, match="no time is given of beta"):
        recover(model_set, times={"alpha": 0})
    with pytest.raises(UnknownName, match="unknown model 'alpa'"):
        recover(model_set, times={"alpa": 0})
    with pytest.raises(InvalidInput, match="2 models cannot be 3 trees"):
        recover(model_set, 3)


def test_one_model_is_a_root():
    forest = recover(points(a=[0, 1]))
    assert (forest.edges, forest.roots, list(forest.families)) == ([], {"a": 1}, [0])
