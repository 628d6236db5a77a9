"""Samples of factors: evenly spread, the same everywhere, and a larger one keeps a smaller one's points."""

from collections import Counter
from math import floor, log

import numpy as np
import pytest
from scipy import stats
from scipy.stats import qmc

from vitarium import Blueprint, plan
from vitarium.blueprint.distributions import Choice, Distribution, distribution
from vitarium.blueprint.sampling import Sample
from vitarium.core.config import InvalidConfig

FACTORS = {
    "optimizer.lr": {"log_uniform": [1e-4, 1e-2]},
    "optimizer.weight_decay": {"uniform": [0, 0.1]},
    "augmentation.mixup": {"choice": [0, 0.2]},
    "epochs": {"integers": [1, 3]},
}
METHODS = ["sobol", "random"]
EVEN = [
    {
        "augmentation.mixup": 0.2,
        "epochs": 2,
        "optimizer.lr": 0.0001829,
        "optimizer.weight_decay": 0.05151,
    },
    {
        "augmentation.mixup": 0,
        "epochs": 2,
        "optimizer.lr": 0.003104,
        "optimizer.weight_decay": 0.02037,
    },
]
RANDOM = [
    {
        "augmentation.mixup": 0,
        "epochs": 2,
        "optimizer.lr": 0.0001404,
        "optimizer.weight_decay": 0.08291,
    },
    {
        "augmentation.mixup": 0,
        "epochs": 1,
        "optimizer.lr": 0.0001205,
        "optimizer.weight_decay": 0.06735,
    },
]


def sample(count, method="sobol", seed=0, factors=FACTORS):
    return Sample.read({"count": count, "method": method, "seed": seed, "factors": factors})


class Coordinate(Distribution):
    """The number itself, not rounded."""

    def value(self, u):
        return u

    def rounded(self, value):
        return value


def coordinates(count, dimensions, method, seed=0):
    """[count, dimensions]"""
    space = {f"epochs.{i}": Coordinate() for i in range(dimensions)}
    points = list(sample(count, method, seed, space).points())
    return np.array([[point[path] for path in space] for point in points])


def sampled(tiny, **changes):
    tiny["stages"] = {"pretrain": {**tiny["stages"]["pretrain"], **changes}}
    return tiny


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("fewer", "more"), [(1, 2), (5, 6), (8, 100)])
def test_a_larger_sample_begins_with_the_smaller_one(method, fewer, more):
    assert list(sample(more, method).points())[:fewer] == list(sample(fewer, method).points())


@pytest.mark.parametrize("method", METHODS)
def test_the_seed_and_nothing_else_decides(method):
    first = list(sample(8, method).points())
    turned = dict(reversed(FACTORS.items()))
    assert first == list(sample(8, method, factors=turned).points())
    assert first != list(sample(8, method, seed=1).points())


def test_the_points_are_those_of_every_version():
    """A change of these would change the ids of models that are in zoos."""
    even, random = (list(sample(2, method).points()) for method in METHODS)
    assert even == EVEN
    assert random == RANDOM


@pytest.mark.parametrize("seed", range(3))
def test_sobol_points_are_a_digital_net(seed):
    """Each elementary interval of volume 1/16 of two coordinates has one of 16 points."""
    points = coordinates(16, 2, "sobol", seed)
    for bits in range(5):
        boxes = np.floor(points * [2**bits, 2 ** (4 - bits)])
        assert len({*map(tuple, boxes)}) == 16


def test_sobol_points_are_as_even_as_scipys_and_evener_than_random_ones():
    ours = np.mean([qmc.discrepancy(coordinates(64, 4, "sobol", seed)) for seed in range(4)])
    scipys = np.mean([qmc.discrepancy(qmc.Sobol(4, rng=seed).random(64)) for seed in range(4)])
    assert ours == pytest.approx(scipys, rel=0.1)
    assert ours < qmc.discrepancy(coordinates(64, 4, "random")) / 3


def test_without_scrambling_the_points_are_scipys(monkeypatch):
    monkeypatch.setattr("vitarium.core.seeds.derive", lambda *names: 0)
    expected = qmc.Sobol(3, scramble=False).random(8)
    assert np.array_equal(coordinates(8, 3, "sobol"), expected)


def test_random_points_are_uniform_and_independent():
    points = coordinates(1000, 2, "random")
    assert stats.kstest(points.ravel(), "uniform").pvalue > 0.01
    assert abs(stats.pearsonr(*points.T).statistic) < 0.1


def test_a_further_factor_leaves_random_values_as_they_are():
    fewer = {path: FACTORS[path] for path in ("epochs", "optimizer.lr")}
    points = sample(4, "random").points()
    expected = [{path: point[path] for path in fewer} for point in points]
    assert list(sample(4, "random", factors=fewer).points()) == expected


@pytest.mark.parametrize(
    ("spec", "reference"),
    [
        ({"uniform": [-1, 3]}, stats.uniform(-1, 4)),
        ({"log_uniform": [1e-4, 1e-2]}, stats.loguniform(1e-4, 1e-2)),
        ({"log-uniform": [1e-4, 1]}, stats.loguniform(1e-4, 1)),
    ],
)
def test_values_are_quantiles(spec, reference):
    for u in np.linspace(0, 1, 50, endpoint=False):
        assert distribution(spec).value(u) == pytest.approx(reference.ppf(u), rel=5e-4, abs=5e-4)


def test_every_integer_and_every_choice_is_as_probable():
    u = (np.arange(400) + 0.5) / 400
    assert Counter(map(distribution({"integers": [3, 6]}).value, u)) == dict.fromkeys(
        range(3, 7), 100
    )
    assert Counter(map(distribution({"choice": ["a", "b"]}).value, u)) == {"a": 200, "b": 200}


@pytest.mark.parametrize(
    "bounds", [[1e-4, 1e-2], [0.123456, 0.2], [1.0, 1.01], [1000, 1001], [7, 10**9]]
)
@pytest.mark.parametrize("kind", ["uniform", "log_uniform"])
def test_values_are_short_and_stay_apart_and_inside(kind, bounds):
    values = [distribution({kind: bounds}).value(i / 1000) for i in range(1000)]
    assert len({*values}) > 800
    assert all(bounds[0] <= value <= bounds[1] for value in values)
    steps = 4 - floor(log(bounds[1] / bounds[0] - 1, 10))
    assert max(len(f"{value:.10g}".strip("0").replace(".", "")) for value in values[1:]) <= max(
        steps + 1, 10
    )
    assert values == sorted(values)


def test_a_log_uniform_value_has_four_digits():
    values = [distribution({"log_uniform": [1e-5, 1]}).value(i / 100) for i in range(100)]
    assert all(value == float(f"{value:.4g}") for value in values)


def test_every_point_of_the_grid_every_variant_and_every_parent_gets_the_same_samples(tiny):
    stages = tiny["stages"]
    stages["finetune"] |= {
        "grid": {"seed": [1, 2]},
        "variants": [{}, {"clip_grad_norm": 1.0}],
        "sample": {"count": 3, "factors": {"optimizer.lr": {"log_uniform": [1e-4, 1e-2]}}},
    }
    planned = plan(tiny)
    rates = Counter(model.recipe.optimizer.config.lr for model in planned.of_stage("finetune"))
    parents = planned.stages["pretrain"]
    assert rates == dict.fromkeys(planned.swept("finetune")["optimizer.lr"], 2 * 2 * parents)
    assert len(rates) == 3


def test_a_raised_count_keeps_the_models(tiny):
    fewer = plan(sampled(tiny, sample={"count": 3, "factors": FACTORS}))
    more = plan(sampled(tiny, sample={"count": 5, "factors": FACTORS}))
    assert {model.id for model in fewer.models} < {model.id for model in more.models}
    assert more == plan(sampled(tiny, sample={"count": 5, "factors": FACTORS}))


def test_a_sampled_section_and_a_setting_of_it_go_together(tiny):
    space = {"optimizer": {"choice": ["adamw", "sgd"]}, "optimizer.lr": {"uniform": [0.1, 0.2]}}
    planned = plan(sampled(tiny, sample={"factors": space}))
    chosen = {(m.recipe.optimizer.name, m.recipe.optimizer.config.lr) for m in planned.models}
    assert {name for name, _ in chosen} == {"adamw", "sgd"}
    assert all(0.1 <= lr <= 0.2 for _, lr in chosen)


def with_factor(values, path="optimizer.lr"):
    return {"sample": {"factors": {path: values}}}


@pytest.mark.parametrize(
    ("changes", "path", "message"),
    [
        (with_factor({"uniform": [2, 1]}), "factors.optimizer.lr", "the lower bound 2 is not below the upper one, 1"),
        (with_factor({"uniform": [1, 1]}), "factors.optimizer.lr", "the lower bound 1 is not below the upper one, 1"),
        (with_factor({"uniform": [1]}), "factors.optimizer.lr", "[1] is not a list of two bounds; write uniform: [LOW, HIGH]"),
        (with_factor({"uniform": ["x", 1]}), "factors.optimizer.lr", "the bound 'x' is not a finite number"),
        (with_factor({"uniform": [0, float("inf")]}), "factors.optimizer.lr", "the bound 'Infinity' is not a finite number"),
        (with_factor({"uniform": [0, 10**400]}), "factors.optimizer.lr", "is not a finite number"),
        (with_factor({"uniform": [-1e308, 1e308]}), "factors.optimizer.lr", "is further than floating-point numbers go"),
        (with_factor({"log_uniform": [1e-308, 1e308]}), "factors.optimizer.lr", "is further than floating-point numbers go"),
        (with_factor({"integers": [0, 10**400]}, "seed"), "factors.seed", "bounds of integers lie between -2**53 and 2**53"),
        (with_factor({"integers": [1, 2.5]}, "epochs"), "factors.epochs", "the bound 2.5 is not an integer"),
        (with_factor({"integers": [True, 2]}, "epochs"), "factors.epochs", "the bound True is not an integer"),
        (with_factor({"log_uniform": [0, 1]}), "factors.optimizer.lr", "the lower bound 0 has no logarithm"),
        (with_factor({"choice": []}), "factors.optimizer.lr", "an empty choice gives no model"),
        (with_factor({"choice": 3}), "factors.optimizer.lr", "3 is not a list of values; write choice: [...]"),
        (with_factor({"normal": [0, 1]}), "factors.optimizer.lr", "is not one of the distributions uniform, log_uniform"),
        (with_factor({"uniform": [0, 1], "choice": [1]}), "factors.optimizer.lr", "is not one of the distributions"),
        (with_factor([0, 1]), "factors.optimizer.lr", "[0, 1] is no distribution; write {KIND: [...]}"),
        (with_factor({"choice": [1]}, "lr"), "factors.lr", "unknown factor 'lr'; did you mean 'optimizer.lr'?"),
        (with_factor({"choice": [1]}, "optimizer.lrr"), "factors.optimizer.lrr", "unknown factor 'lrr'; did you mean 'lr'?"),
        (with_factor({"uniform": [-2, -1]}), "factors.optimizer.lr", "is not greater than"),
        ({"sample": {"count": 0, "factors": FACTORS}}, "count", "0 is not greater than or equal to 1"),
        ({"sample": {"count": 10**9, "factors": FACTORS}}, "count", "is not less than or equal to 1048576"),
        ({"sample": {"seed": -1, "factors": FACTORS}}, "seed", "-1 is not greater than or equal to 0"),
        ({"sample": {"method": "halton", "factors": FACTORS}}, "method", "'halton' is not 'sobol' or 'random'"),
        ({"sample": {"factors": {}}}, "factors", "names no factor"),
        ({"sample": {"count": 3}}, "factors", "names no factor"),
        ({"sample": 3}, "", "3 is not a mapping with `count` and `factors`"),
        ({"sample": {"factors": FACTORS}, "grid": {"epochs": [1, 2]}}, "factors.epochs", "'grid' varies it, too"),
        ({"sample": {"factors": FACTORS}, "variants": [{"epochs": 1}]}, "factors.epochs", "'variants.0' varies it, too"),
    ],
)  # fmt: skip
def test_the_one_mistake_is_said_with_its_path(tiny, changes, path, message, write_blueprint):
    with pytest.raises(InvalidConfig) as refused:
        plan(Blueprint.load(write_blueprint(sampled(tiny, **changes))))
    (problem,) = refused.value.problems
    assert ".".join(map(str, problem.path)) == f"stages.pretrain.sample.{path}".rstrip(".")
    assert message in problem.message
    assert "(line " in problem.message


def test_a_sample_inside_of_a_variant_is_sent_to_the_stage(tiny):
    with pytest.raises(InvalidConfig, match="'sample' belongs to the stage itself"):
        plan(sampled(tiny, variants=[{"sample": {"factors": FACTORS}}]))


def test_mistakes_of_a_sample_hide_no_others(tiny):
    space = {**FACTORS, "epochs": {"integers": [2, 1]}, "optimizer.lrr": {"choice": [1]}}
    changes = {"sample": {"count": 0, "methd": 1, "factors": space}, "batch_size": -1}
    with pytest.raises(InvalidConfig) as refused:
        plan(sampled(tiny, **changes))
    paths = {".".join(map(str, problem.path[2:])) for problem in refused.value.problems}
    inside = {
        "sample.count",
        "sample.methd",
        "sample.factors.epochs",
        "sample.factors.optimizer.lrr",
    }
    assert paths == {"batch_size", *inside}


def test_choice_keeps_values_as_they_are():
    assert distribution({"choice": [[1, 2], None]}) == Choice(([1, 2], None))
