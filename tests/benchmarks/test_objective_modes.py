"""Design and statistics of the benchmark of objectives; nothing is trained here."""

import importlib

import numpy as np
import pytest

from vitarium.blueprint.plan import plan


@pytest.fixture(scope="module")
def modes():
    return importlib.import_module("objective_modes")


@pytest.fixture(scope="module")
def table():
    return importlib.import_module("objective_modes_table")


@pytest.fixture(scope="module")
def planned(modes):
    return plan(modes.blueprint({name: range(2) for name in modes.OBJECTIVES}))


def recipes(planned, stage):
    return [model.recipe for model in planned.of_stage(stage)]


def test_objectives_see_the_same_images_for_as_many_steps(modes, planned):
    first, *others = (recipes(planned, name) for name in modes.OBJECTIVES)
    for recipe in [*first, *(each for recipes in others for each in recipes)]:
        for name in ("architecture", "data", "epochs", "batch_size", "schedule"):
            assert getattr(recipe, name) == getattr(first[0], name)


def test_children_differ_by_parent_and_way_alone(modes, planned):
    by_objective = [recipes(planned, modes.TUNED.format(name)) for name in modes.OBJECTIVES]
    assert {len(children) for children in by_objective} == {2 * len(modes.WAYS)}
    settings = [
        {(child.adaptation.name, child.optimizer, child.data, child.epochs) for child in children}
        for children in by_objective
    ]
    assert all(each == settings[0] for each in settings)
    scratch = recipes(planned, modes.SCRATCH)
    assert {(child.data, child.epochs) for child in scratch} == {
        (data, epochs) for _, _, data, epochs in settings[0]
    }


def test_what_is_compared_in_pairs_differs_in_the_objective_alone(modes):
    for first, second in modes.PAIRED:
        pretraining, compared = modes.OBJECTIVES[first], modes.OBJECTIVES[second]
        assert pretraining.augmentation == compared.augmentation
        assert (pretraining.lr, pretraining.weight_decay, pretraining.settings) == (
            compared.lr,
            compared.weight_decay,
            compared.settings,
        )


def test_an_interval_is_as_wide_as_the_binomial_of_its_images(table):
    """Two models that are right on the same images vary by the draw of images alone."""
    right = np.random.default_rng(0).random(1000) < 0.7
    interval = table.interval(np.stack([right, right]))
    assert interval["value"] == right.mean()
    share = right.mean()
    width = 2 * 1.96 * np.sqrt(share * (1 - share) / 1000)
    assert interval["high"] - interval["low"] == pytest.approx(width, rel=0.1)


def test_images_that_both_have_right_cancel_in_a_difference(table):
    """Of 1,000 images the first model has 50 more right, and all of the second's."""
    base = np.arange(1000) < 600
    right = np.arange(1000) < 650
    interval = table.interval(right[None], base[None])
    assert interval["value"] == pytest.approx(0.05)
    width = 2 * 1.96 * np.sqrt(0.05 * 0.95 / 1000)
    assert interval["high"] - interval["low"] == pytest.approx(width, rel=0.1)


def test_pairs_of_seeds_cancel_what_a_seed_does_to_both(table):
    """Three seeds differ by 20 points; the first objective has 2 points more in each."""
    order = np.random.default_rng(1).permutation(5000)
    first = np.stack([order < 5000 * share for share in (0.42, 0.52, 0.62)])
    second = np.stack([order < 5000 * share for share in (0.40, 0.50, 0.60)])
    scores = ("knn", "full", "head")
    paired = table.in_pairs(dict.fromkeys(scores, first), dict.fromkeys(scores, second))
    assert list(paired) == [*scores, "all four ways"]
    for estimate in paired.values():
        assert estimate["value"] == pytest.approx(0.02)
        assert estimate["high"] - estimate["low"] < 0.01
    alone = table.interval(first)
    assert alone["high"] - alone["low"] > 0.1


def test_a_score_that_was_not_taken_is_a_dash(table):
    row = table.row_of("pixels", {"pixels": {"knn": np.ones((1, 10), bool)}})
    assert set(row) == {"objective", "knn"}
    assert table.cell(row.get("probe")) == "-"
    assert table.cell(row["knn"]) == "100.0 ± 0.0"
