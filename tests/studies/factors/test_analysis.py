"""Shares of variance against the analysis of variance, closed forms, and brute force."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from vitarium.core.errors import InvalidInput
from vitarium.studies.factors.fit import analyze
from vitarium.studies.factors.observed import observed_of
from vitarium.studies.statistics.bootstrap import Bootstrap

QUICK = Bootstrap(n_resamples=200)
HEADS, RATES, OPTIMIZERS = ["linear", "mlp", "none"], [1e-3, 3e-3, 1e-2, 3e-2], ["adamw", "sgd"]
FORMULA = "y ~ (C(head) + C(rate) + C(optimizer)) ** 2"


def grid(seeds: int = 2, noise: float = 0.3, seed: int = 0) -> tuple[dict, dict]:
    """Factors and target by model: effects of all three, and an interaction of two."""
    random = np.random.default_rng(seed)
    rows, target = {}, {}
    for head, rate, optimizer, number in product(HEADS, RATES, OPTIMIZERS, range(seeds)):
        id = f"m{len(rows)}"
        rows[id] = {"head": head, "optimizer": optimizer, "optimizer.lr": rate, "seed": number}
        slope = 1.0 if optimizer == "sgd" else 0.2
        effect = HEADS.index(head) + slope * np.log10(rate)
        target[id] = float(effect + noise * random.normal())
    return rows, target


def analyzed(rows, target, parents=None, of_parents=None, bootstrap=QUICK):
    parents = dict.fromkeys(rows) if parents is None else parents
    return analyze(observed_of("train", target, rows, parents, of_parents or {}), bootstrap)


def by_name(analysis) -> dict[str, int]:
    """The number of each term, by the names of its factors, in order of letters."""
    names = [factor.name for factor in analysis.factors]
    return {
        ":".join(sorted(names[index] for index in term.factors)): number
        for number, term in enumerate(analysis.design.terms)
    }


def anova(rows, target, typ: int) -> pd.DataFrame:
    table = pd.DataFrame(rows.values()).rename(columns={"optimizer.lr": "rate"})
    fit = ols(FORMULA, table.assign(y=list(target.values()))).fit()
    squares = anova_lm(fit, typ=typ)

    def name(label: str) -> str:
        parts = label.replace("C(", "").replace(")", "").replace("rate", "lr").split(":")
        return ":".join(sorted(parts))

    return squares.rename(index=name)


def test_in_a_balanced_grid_shares_are_those_of_the_analysis_of_variance():
    rows, target = grid()
    analysis = analyzed(rows, target)
    squares = anova(rows, target, 2)
    total, error = squares["sum_sq"].sum(), squares["sum_sq"]["Residual"]
    mean_square = error / squares["df"]["Residual"]
    for name, number in by_name(analysis).items():
        row = squares.loc[name]
        assert analysis.surface.raw_shares[number] == pytest.approx(row["sum_sq"] / total)
        omega = (row["sum_sq"] - row["df"] * mean_square) / (total + mean_square)
        share = analysis.surface.variances[number] / analysis.surface.total
        assert share == pytest.approx(omega)
        assert analysis.surface.p_values[number] == pytest.approx(row["PR(>F)"], rel=1e-6)


def test_in_an_unbalanced_grid_tests_are_of_type_two():
    rows, target = grid()
    dropped = set(np.random.default_rng(1).permutation(list(rows))[:9].tolist())
    rows = {id: row for id, row in rows.items() if id not in dropped}
    target = {id: target[id] for id in rows}
    analysis, squares = analyzed(rows, target), anova(rows, target, 2)
    for name, number in by_name(analysis).items():
        p = analysis.surface.p_values[number]
        assert p == pytest.approx(squares.loc[name]["PR(>F)"], rel=1e-6)


def test_of_numbers_drawn_at_random_shares_are_sobols_indices():
    """Of x * y on the unit square: 3/7 each, and 1/7 of their interaction."""
    random = np.random.default_rng(2)
    points = random.uniform(size=(600, 3))
    rows = {f"m{i}": dict(zip(["a.x", "a.y", "a.z"], p, strict=True)) for i, p in enumerate(points)}
    target = {id: row["a.x"] * row["a.y"] for id, row in rows.items()}
    analysis = analyzed(rows, target)
    shares = analysis.surface.variances / analysis.surface.total
    numbers = by_name(analysis)
    expected = {"x": 3 / 7, "y": 3 / 7, "z": 0, "x:y": 1 / 7}
    for name, share in expected.items():
        assert shares[numbers[name]] == pytest.approx(share, abs=0.03)
    totals = {effect.factor.name: effect.total.value for effect in analysis.effects}
    assert totals["x"] == pytest.approx(4 / 7, abs=0.03)


def test_a_scale_is_logarithmic_where_numbers_are_even_on_it():
    random = np.random.default_rng(3)
    rows = {
        f"m{i}": {"a.log": float(10 ** random.uniform(-4, -1)), "b.even": float(random.uniform())}
        for i in range(60)
    }
    target = {id: float(random.normal()) for id in rows}
    logs = {factor.name: factor.is_log for factor in analyzed(rows, target).factors}
    assert logs == {"log": True, "even": False}
    rows, target = grid()
    assert {f.name: f.is_log for f in analyzed(rows, target).factors}["lr"]


def family(parents: int, *, between: float = 0.5, seed: int = 0):
    """Children of parents that differ in their objective and in themselves."""
    random = np.random.default_rng(seed)
    of_parents = {f"p{i}": {"objective": ["dino", "mae"][i % 2], "seed": i} for i in range(parents)}
    offsets = {parent: between * random.normal() for parent in of_parents}
    rows, target, related = {}, {}, {}
    for parent, (rate, head) in product(of_parents, product(RATES[:3], HEADS[:2])):
        id = f"{parent}-{rate}-{head}"
        rows[id], related[id] = {"optimizer.lr": rate, "head": head}, parent
        effect = 0.6 * (of_parents[parent]["objective"] == "dino") + offsets[parent]
        target[id] = float(effect + 0.2 * np.log10(rate) + 0.2 * random.normal())
    return rows, target, related, of_parents


def test_parents_factors_are_judged_by_the_differences_between_parents():
    rows, target, related, of_parents = family(8)
    analysis = analyzed(rows, target, related, of_parents)
    means = pd.Series(target).groupby(pd.Series(related)).mean()
    kinds = pd.Series({parent: row["objective"] for parent, row in of_parents.items()})
    p = stats.f_oneway(*(means[kinds == kind] for kind in ("dino", "mae"))).pvalue
    number = by_name(analysis)["parent's objective"]
    assert analysis.surface.p_values[number] == pytest.approx(p)
    assert analysis.surface.parents_freedom == 6
    # the variance of parents of a nested design, by its mean squares
    within = means.groupby(kinds).transform(lambda group: group - group.mean())
    mean_square = 6 * (within**2).sum() / 6
    variance = (mean_square - analysis.surface.noise) / 6
    assert analysis.surface.parents_variance == pytest.approx(variance)


def test_of_two_parents_no_interval_of_their_factors_is_given():
    rows, target, related, of_parents = family(2)
    (effect,) = (e for e in analyzed(rows, target, related, of_parents).effects if e.is_between)
    assert (effect.share.low, effect.difference.low) == (None, None)
    assert np.isnan(effect.p)


def test_the_noise_of_seeds_is_the_variance_among_models_that_differ_in_them_alone():
    rows, target = grid(seeds=3)
    analysis = analyzed(rows, target)
    table = pd.DataFrame(rows).T.assign(y=pd.Series(target))
    within = table.groupby(["head", "optimizer", "optimizer.lr"])["y"].var(ddof=1).mean()
    assert analysis.surface.seeds_share.value == pytest.approx(within / analysis.surface.total)
    rows, target = grid(seeds=1)
    assert analyzed(rows, target).surface.seeds_share is None


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    noise, hits, runs = 0.5, np.zeros(3), 40
    rows, exact = grid(noise=0)
    values = pd.Series(exact)
    heads = values.groupby([row["head"] for row in rows.values()]).mean()
    truth = heads.to_numpy().var() / (values.to_numpy().var() + noise**2)
    random = np.random.default_rng(4)
    for _ in range(runs):
        target = {id: value + noise * random.normal() for id, value in exact.items()}
        analysis = analyzed(rows, target, bootstrap=Bootstrap(n_resamples=100))
        (head,) = (effect for effect in analysis.effects if effect.factor.name == "head")
        gap = heads[head.highest] - heads[head.lowest]
        rest, expected = (
            analysis.surface.rest_share,
            noise**2 / (values.to_numpy().var() + noise**2),
        )
        hits += [
            head.share.low <= truth <= head.share.high,
            head.difference.low <= gap <= head.difference.high,
            rest.low <= expected <= rest.high,
        ]
    assert (hits / runs >= 0.85).all()
    assert head.share.high - head.share.low < 0.3  # and say something


def test_order_scale_and_names_of_models_do_not_matter():
    rows, target = grid()
    plain = analyzed(rows, target)
    order = np.random.default_rng(5).permutation(list(rows)).tolist()
    other = analyzed({f"x{i}": rows[i] for i in order}, {f"x{i}": 7 * target[i] - 3 for i in order})
    assert other.surface.variances / other.surface.total == pytest.approx(
        plain.surface.variances / plain.surface.total
    )


def test_with_few_models_interactions_are_tried_one_at_a_time():
    random = np.random.default_rng(6)
    rows = {
        f"m{i}": {f"a.x{j}": float(x) for j, x in enumerate(random.uniform(-1, 1, size=9))}
        for i in range(60)
    }
    target = {
        id: row["a.x0"] + 2 * row["a.x1"] * row["a.x2"] + 0.1 * random.normal()
        for id, row in rows.items()
    }
    analysis = analyzed(rows, target)
    assert analysis.interactions_fitted == "clear"
    first = analysis.interactions[0]
    assert {factor.name for factor in first.factors} == {"x1", "x2"}
    assert first.share.value > 0.3
    assert any(interaction.share is None for interaction in analysis.interactions)


def test_how_many_models_would_be_needed_shrinks_with_the_noise_squared():
    counts = []
    for noise in (2.0, 4.0):
        rows, target = grid(seeds=1, noise=0, seed=7)
        random = np.random.default_rng(8)
        target = {id: 0.2 * HEADS.index(rows[id]["head"]) for id in target}
        target = {id: value + noise * random.normal() for id, value in target.items()}
        analysis = analyzed(rows, target)
        effect = max(analysis.effects, key=lambda e: e.p)
        needed = analysis.models_needed(effect)
        half = (effect.difference.high - effect.difference.low) / 2 / stats.norm.ppf(0.975)
        power = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)
        expected = 24 * (power * half / effect.difference.value) ** 2
        assert needed == max(25, int(np.ceil(expected)))
        counts.append(needed)


@pytest.mark.parametrize(
    ("rows", "target", "message"),
    [
        ({f"m{i}": {"seed": i} for i in range(6)}, range(6), "no factor varies .* but seed"),
        ({f"m{i}": {"head": i % 2} for i in range(6)}, [1] * 6, "all 6 models .* the same value"),
        (
            {f"m{i}": {f"a.x{j}": "abc"[i * (j + 2) % 11 % 3] for j in range(5)} for i in range(8)},
            range(8),
            "8 models .* are too few for its 5 factors",
        ),
    ],
    ids=["seeds alone", "one value", "too few"],
)
def test_where_there_is_nothing_to_explain_or_too_little_to_do_it_that_is_said(
    rows, target, message
):
    with pytest.raises(InvalidInput, match=message):
        analyzed(rows, dict(zip(rows, map(float, target), strict=True)))


@pytest.mark.parametrize("models", [6, 7, 9])
def test_few_models_with_a_setting_that_few_of_them_have_are_fitted(models):
    """A polynomial through two numbers is a line."""
    rows = {f"m{i}": {"optimizer": "adamw", "seed": i} for i in range(models)}
    rows |= {f"m{i}": {"optimizer": "sgd", "optimizer.momentum": 0.1 * (i + 3)} for i in (0, 1)}
    rows |= {f"m{i}": rows[f"m{i}"] | {"x.depth": i} for i in range(models)}
    target = dict(zip(rows, np.random.default_rng(9).normal(size=models).tolist(), strict=True))
    shares = [effect.share.value for effect in analyzed(rows, target).effects]
    assert all(0 <= share <= 1 for share in shares)
