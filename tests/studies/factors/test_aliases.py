"""Factors that cannot be told apart are found by the design, and named."""

from itertools import product

import numpy as np

from vitarium.studies.factors.aliases import aliases
from vitarium.studies.factors.fit import analyze
from vitarium.studies.factors.observed import observed_of
from vitarium.studies.statistics.bootstrap import Bootstrap


def listed(rows: list[dict]) -> dict[tuple[str, str], tuple[str, ...]]:
    """By kind and name, the other factors."""
    random = np.random.default_rng(0)
    models = {f"m{i}": row for i, row in enumerate(rows)}
    target = {id: float(random.normal()) for id in models}
    observed = observed_of("train", target, models, dict.fromkeys(models))
    analysis = analyze(observed, Bootstrap(n_resamples=20))
    return {(alias.kind, alias.name): alias.others for alias in aliases(analysis)}


def test_factors_that_never_vary_apart_are_one():
    grid = product([0.0, 0.1], "ab", range(3))
    rows = [{"x.dropout": d, "x.drop_path": 2 * d, "head": h, "seed": s} for d, h, s in grid]
    assert listed(rows) == {("equal", "dropout"): ("drop_path",)}


def test_numbers_that_rise_together_are_one():
    draws = np.random.default_rng(1).uniform(size=30)
    rows = [{"x.dropout": float(u), "x.drop_path": float(1 - u) ** 2} for u in draws]
    assert listed(rows) == {("equal", "dropout"): ("drop_path",)}


def test_a_factor_that_determines_another_counts_for_what_it_does_beyond():
    rates = {"adamw": [1e-3, 3e-3], "sgd": [3e-2]}
    pairs = [(o, rate) for o in rates for rate in rates[o]]
    rows = [
        {"optimizer": o, "optimizer.lr": rate, "head": h, "seed": s}
        for (o, rate), h, s in product(pairs, "ab", range(3))
    ]
    assert listed(rows)[("nested", "lr")] == ("optimizer",)


def test_a_factor_that_others_determine_together_is_named_with_them():
    rows = [
        {"x.a": a, "x.b": b, "x.c": a + b, "seed": s}
        for a, b, s in product([0, 1], [0, 1], range(5))
    ]
    assert set(listed(rows)[("aliased", "c")]) <= {"a", "b"}


def test_a_setting_that_some_models_have_is_no_alias():
    random = np.random.default_rng(2)
    rows = []
    for number in range(60):
        row = {"optimizer": ["adamw", "sgd"][number % 2], "x.dropout": float(random.uniform())}
        if row["optimizer"] == "sgd":
            row["optimizer.momentum"] = float(random.uniform())
        rows.append(row)
    assert listed(rows) == {}


def test_factors_that_vary_together_for_the_most_part_are_said_to():
    rows = [{"x.a": a, "x.b": a if s else 1 - a, "seed": s} for a, s in product([0, 1], range(15))]
    assert listed(rows) == {("close", "a"): ("b",)}


def test_combinations_that_are_missing_are_said_to_be():
    cells = [pair for pair in product("abc", "xyz") if pair != ("a", "x")]
    rows = [{"head": h, "objective": o, "seed": s} for (h, o), s in product(cells, range(3))]
    assert list(listed(rows)) == [("empty", "head \u00d7 objective")]
