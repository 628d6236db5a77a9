"""Shares of variance against statsmodels' analysis of variance, and against brute force."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from vitarium.studies.statistics.bootstrap import Bootstrap
from vitarium.studies.statistics.variance import complete, explained, squared_differences

QUICK = Bootstrap(n_resamples=100)


def grouped(effect: float, sizes=(5, 7, 4), seed: int = 0) -> tuple[np.ndarray, list[str]]:
    labels = [f"g{group}" for group, size in enumerate(sizes) for _ in range(size)]
    noise = np.random.default_rng(seed).normal(size=len(labels))
    return np.array([effect * int(label[1]) for label in labels]) + noise, labels


@pytest.mark.parametrize("effect", [0.0, 0.5, 3.0])
def test_of_numbers_it_is_the_analysis_of_variance(effect):
    values, labels = grouped(effect)
    fit = ols("y ~ C(g)", pd.DataFrame({"y": values, "g": labels})).fit()
    squares = anova_lm(fit)["sum_sq"]
    found = explained(squared_differences(values), labels, bootstrap=QUICK)
    assert found.eta_squared.value == pytest.approx(squares["C(g)"] / squares.sum())
    assert found.adjusted.value == pytest.approx(fit.rsquared_adj)
    assert (found.models, found.groups) == (16, 3)


def test_of_distances_it_is_that_of_the_vectors_summed_over_coordinates():
    random = np.random.default_rng(1)
    labels = [*"aaabbbbcc"]
    points = random.normal(size=(9, 5)) + np.array([[ord(x)] for x in labels])
    squared = ((points[:, None] - points[None]) ** 2).sum(2)
    total = ((points - points.mean(0)) ** 2).sum()
    within = sum(
        ((part - part.mean(0)) ** 2).sum() for part in (points[:3], points[3:7], points[7:])
    )
    found = explained(squared, labels, bootstrap=QUICK)
    assert found.eta_squared.value == pytest.approx(1 - within / total)


def test_p_is_the_share_of_orders_that_explain_as_much():
    values, labels = grouped(1.0, sizes=(3, 3), seed=2)
    squared = squared_differences(values)

    def share(order) -> float:
        shuffled = [labels[place] for place in order]
        return explained(squared, shuffled, bootstrap=QUICK, permutations=1).eta_squared.value

    mine = share(range(6))
    exact = np.mean([share(order) >= mine - 1e-9 for order in set(permutations(range(6)))])
    found = explained(squared, labels, bootstrap=QUICK, permutations=4000)
    assert found.p == pytest.approx(exact, abs=0.03)


def test_labels_of_parents_are_shuffled_between_parents():
    """Twenty children of two parents are a sample of two."""
    parents = ["a"] * 10 + ["b"] * 10
    kinds = ["x"] * 10 + ["y"] * 10
    values = np.random.default_rng(0).normal(size=20) + 5 * np.repeat([0, 1], 10)
    squared = squared_differences(values)
    assert explained(squared, kinds, bootstrap=QUICK).p < 0.01
    assert explained(squared, kinds, bootstrap=QUICK, parents=parents).p == 1


def test_labels_of_children_are_shuffled_within_each_parent():
    """As often significant as it says, however much parents differ; between all it hardly is."""
    random = np.random.default_rng(6)
    parents, labels = np.repeat([*"abc"], 4).tolist(), [*"xxyy"] * 3
    offsets = 20 * np.repeat([0, 1, 3], 4)
    ps = {True: [], False: []}
    for _ in range(200):
        squared = squared_differences(random.normal(size=12) + offsets)
        for within, values in ps.items():
            strata = parents if within else None
            share = explained(squared, labels, bootstrap=QUICK, parents=strata, permutations=99)
            values.append(share.p)
    assert 0.05 < np.mean(np.array(ps[True]) <= 0.1) < 0.16
    assert np.mean(np.array(ps[False]) <= 0.1) < 0.01


def test_p_within_parents_is_the_share_of_orders_that_explain_as_much():
    random = np.random.default_rng(7)
    parents, labels = [*"aaabbb"], [*"xyyxxy"]
    squared = squared_differences(random.normal(np.repeat([0, 5], 3)))

    def within(order) -> float:
        total = 0.0
        for label in "xy":
            members = [index for index in range(6) if order[index] == label]
            total += squared[np.ix_(members, members)].sum() / len(members)
        return total

    orders = [(*a, *b) for a in permutations(labels[:3]) for b in permutations(labels[3:])]
    exact = np.mean([within(order) <= within(labels) + 1e-9 for order in orders])
    share = explained(squared, labels, bootstrap=QUICK, parents=parents, permutations=4000)
    assert share.p == pytest.approx(exact, abs=0.03)


def test_p_is_even_where_a_factor_means_nothing():
    random = np.random.default_rng(5)
    labels = [*"aabbccddee"]
    ps = [
        explained(
            squared_differences(random.normal(size=10)), labels, bootstrap=QUICK, permutations=99
        ).p
        for _ in range(200)
    ]
    assert 0.02 < np.mean(np.array(ps) <= 0.1) < 0.18


def test_the_interval_of_the_adjusted_share_holds_the_true_one_about_as_often_as_it_says():
    random, hits, truth = np.random.default_rng(0), 0, 0.5
    labels = ["a"] * 30 + ["b"] * 30
    bootstrap = Bootstrap(n_resamples=200, confidence_level=0.9)
    for _ in range(150):
        values = random.normal(size=60) + 2 * np.repeat([0, 1], 30)  # 1 between, 1 within
        found = explained(
            squared_differences(values), labels, bootstrap=bootstrap, permutations=1
        ).adjusted
        hits += found.low <= truth <= found.high
    assert 0.8 < hits / 150 < 0.97


def test_copies_of_a_model_are_not_compared_with_each_other():
    """Else groups would look closer than they are in every draw, and chance like an effect."""
    random = np.random.default_rng(0)
    labels = [*"aabbccddeeff"]
    middles = []
    for _ in range(60):
        found = explained(
            squared_differences(random.normal(size=12)), labels, bootstrap=QUICK, permutations=1
        )
        middles.append((found.adjusted.low + found.adjusted.high) / 2)
    assert np.mean(middles) < 0.1


@settings(deadline=None, max_examples=15)
@given(st.floats(0.01, 100), st.permutations(range(10)))
def test_scale_and_order_and_names_do_not_matter(scale, order):
    values, labels = grouped(1.0, sizes=(4, 6))
    plain = explained(squared_differences(values), labels, bootstrap=QUICK, permutations=1)
    order = np.array(order)
    other = explained(
        squared_differences(scale * values[order]),
        [labels[place].replace("g", "x") for place in order],
        bootstrap=QUICK,
        permutations=1,
    )
    assert other.eta_squared.value == pytest.approx(plain.eta_squared.value)


@pytest.mark.parametrize(
    ("values", "labels"),
    [([1, 2, 3, 4], "aaaa"), ([1, 2, 3, 4], "abcd"), ([2, 2, 2, 2], "aabb")],
    ids=["one group", "a group for each", "all the same"],
)
def test_where_nothing_can_be_explained_there_is_no_answer(values, labels):
    squared = squared_differences(np.array(values, dtype=float))
    assert explained(squared, [*labels], bootstrap=QUICK) is None


def test_models_that_lack_distances_are_left_out_and_no_others():
    squared = np.zeros((4, 4))
    squared[1, :] = squared[:, 1] = np.nan
    squared[1, 1] = 0
    assert complete(squared).tolist() == [0, 2, 3]
    assert complete(np.full((2, 2), np.nan)).tolist() == []
