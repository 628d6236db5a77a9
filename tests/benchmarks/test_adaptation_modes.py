"""Design and statistics of the benchmark of adaptations; nothing is trained here."""

import importlib
from itertools import product

import numpy as np
import pandas as pd
import pytest

from vitarium.blueprint.plan import plan
from vitarium.core.registry import plugins
from vitarium.studies.statistics.bootstrap import UNLIMITED


@pytest.fixture(scope="module")
def modes():
    return importlib.import_module("adaptation_modes")


@pytest.fixture(scope="module")
def table():
    return importlib.import_module("adaptation_modes_table")


@pytest.fixture
def children(table):
    """Four seeds of three adaptations."""
    rows = [(name, seed) for name in ("full", "head", "lora") for seed in range(4)]
    models = pd.DataFrame(rows, columns=["stage", "seed"])
    models["id"] = [f"m{number}" for number in range(len(models))]
    return table.Children(zoo=None, models=models, data_dir=None)


@pytest.mark.parametrize("transfer", ["cifar", "digits"])
def test_children_of_all_adaptations_have_the_same_parent_and_data(modes, transfer):
    factors = {name: [(rates[0], 0)] for name, (_, rates) in modes.ADAPTATIONS.items()}
    planned = plan(modes.blueprint(modes.TRANSFERS[transfer], factors))
    (parent,) = planned.of_stage(modes.PARENT)
    grown = [model for model in planned.models if model is not parent]
    assert {model.parent for model in grown} == {parent.id}
    assert len({model.recipe.data for model in grown}) == 1
    # one needs convolutions of its own, and for the other a plain vit has no scales
    compared = set(plugins("adaptation")) - {"injected", "scales"}
    assert {model.recipe.adaptation.name for model in grown} == compared


def distances(children, noise):
    values = noise.random((len(children.ids),) * 2)
    values += values.T
    np.fill_diagonal(values, np.nan)
    return values


def mean_over_pairs(children, values, first, second):
    """Of different seeds."""
    numbered = list(enumerate(zip(children.adaptations, children.models["seed"], strict=True)))
    chosen = [
        values[i, j]
        for (i, (left, seed)), (j, (right, other)) in product(numbered, numbered)
        if seed != other and left == first and right == second
    ]
    return np.mean(chosen)


def test_means_are_over_pairs_of_different_seeds(table, children):
    values = distances(children, np.random.default_rng(0))
    statistics = table.Statistics(children)
    for first, second in (("lora", "lora"), ("lora", "full")):
        estimate = statistics.pairs(values, first, second, UNLIMITED)
        assert estimate.value == pytest.approx(mean_over_pairs(children, values, first, second))
        assert estimate.low < estimate.value < estimate.high


def test_separation_is_what_pairs_across_differ_more(table, children):
    values = distances(children, np.random.default_rng(1))
    within = [mean_over_pairs(children, values, name, name) for name in ("lora", "full")]
    across = mean_over_pairs(children, values, "lora", "full")
    estimate = table.Statistics(children).separation(values, "lora")
    assert estimate.value == pytest.approx(across - np.mean(within))


def test_modes_apart_are_separated_beyond_doubt_and_one_mode_is_not(table, children):
    noise = np.random.default_rng(2)
    points = noise.normal(size=(len(children.ids), 50))
    statistics = table.Statistics(children)

    def separation(points):
        values = np.linalg.norm(points[:, None] - points, axis=-1)
        np.fill_diagonal(values, np.nan)
        return statistics.separation(values, "lora")

    shared = separation(points)
    assert shared.low < 0 < shared.high
    assert separation(points + 10 * children.of("lora")[:, None]).is_positive


def test_a_pair_without_a_value_is_a_dash(table, children):
    values = np.full((len(children.ids),) * 2, np.nan)
    estimate = table.Statistics(children).pairs(values, "lora", "full", UNLIMITED)
    assert table.cell(estimate, 100, 1) == "-"
    assert (
        table.plain(table.Results([{"barrier": estimate}], {}))["rows"][0]["barrier"]["value"]
        is None
    )


def test_weights_of_other_models_are_left_out_of_what_adaptations_explain(table, children):
    """Prompted models have no weight distance from plain ones."""
    points = np.random.default_rng(3).normal(size=(len(children.ids), 50))
    points += 10 * children.of("lora")[:, None]
    squared = ((points[:, None] - points) ** 2).sum(-1)
    squared[children.of("head")] = squared[:, children.of("head")] = np.nan
    effects = table.explained_of(children, squared)
    assert effects["adaptation"].models == 8
    assert effects["adaptation"].adjusted.value > 0.9
    assert effects["seed"].adjusted.value < 0.1
