"""The mixed model against closed forms."""

import numpy as np
import pytest
from scipy import stats

from vitarium.studies.statistics.variance import NoMixedModel, mixed


def test_of_a_balanced_sample_without_factors_it_is_the_analysis_of_variance():
    """REML: the parents' variance is (MS_between - MS_within) / children."""
    random = np.random.default_rng(0)
    parents = np.repeat(np.arange(8), 5)
    values = 2 * random.normal(size=8)[parents] + random.normal(size=40)
    groups = values.reshape(8, 5)
    between = 5 * groups.mean(1).var(ddof=1)
    within = groups.var(axis=1, ddof=1).mean()
    variance = (between - within) / 5
    found = mixed(values, {}, [str(parent) for parent in parents])
    assert found.parent == pytest.approx(variance / (variance + within), abs=1e-3)
    assert found.fixed == 0
    assert (found.models, found.parents) == (40, 8)


def test_factors_take_their_share_and_are_told_from_those_that_mean_nothing():
    random = np.random.default_rng(1)
    parents = np.repeat(np.arange(6), 10)
    rate, head = np.tile([0, 1], 30), random.integers(0, 2, 60)
    values = 3 * rate + random.normal(size=6)[parents] + 0.5 * random.normal(size=60)
    labels = {"lr": rate.astype(str), "head": head.astype(str)}
    found = mixed(values, labels, parents.astype(str))
    assert found.fixed + found.parent + found.residual == pytest.approx(1)
    assert found.fixed > 0.5
    assert found.p["lr"] < 1e-6 < 0.01 < found.p["head"]


@pytest.mark.parametrize("children", [2, 4])
def test_p_is_that_of_the_analysis_of_variance_in_a_balanced_design(children):
    """Randomized blocks: a factor of the models against what is left of them, one of the parents
    against the parents, whose numbers are few."""
    random = np.random.default_rng(4)
    parents = np.repeat(np.arange(6), 2 * children)
    kind, rate = parents % 2, np.tile([0, 1], 6 * children)
    values = 2 * random.normal(size=6)[parents] + 0.3 * rate + random.normal(size=12 * children)
    labels = {"kind": kind.astype(str), "rate": rate.astype(str)}
    p = mixed(values, labels, parents.astype(str)).p
    # by hand: of models, after their parents' means are taken off
    means = np.array([values[parents == parent].mean() for parent in range(6)])
    rest = values - means[parents]
    gap = rest[rate == 1].mean() - rest[rate == 0].mean()
    of_rate = len(values) * gap**2 / 4
    freedom = len(values) - 6 - 1
    f = of_rate / (((rest**2).sum() - of_rate) / freedom)
    assert p["rate"] == pytest.approx(stats.f.sf(f, 1, freedom), rel=1e-2)
    assert p["kind"] == pytest.approx(stats.f_oneway(means[::2], means[1::2]).pvalue, rel=1e-2)


def test_a_factor_that_others_determine_is_left_out():
    random = np.random.default_rng(2)
    rate = ["1", "2", "3"] * 8
    optimizer = ["sgd" if each == "3" else "adamw" for each in rate]
    parents = np.repeat(["a", "b", "c"], 8)
    found = mixed(random.normal(size=24), {"lr": rate, "optimizer": optimizer}, parents)
    assert found.left_out == ("optimizer",)
    assert set(found.p) == {"lr"}


@pytest.mark.parametrize(
    ("values", "labels", "parents", "why"),
    [
        (range(6), {}, "aaaaaa", "at least two parents"),
        ([1] * 6, {}, "aaabbb", "the same for all"),
        (range(4), {"x": "abcd"}, "aabb", "4 models are too few for 4 coefficients and 2 parents"),
    ],
)
def test_where_there_is_none_it_says_why(values, labels, parents, why):
    with pytest.raises(NoMixedModel, match=why):
        mixed(np.array(values, dtype=float), labels, [*parents])
