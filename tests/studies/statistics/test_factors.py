"""Which factors there are, and the groups that they make."""

import pandas as pd

from vitarium.studies.statistics.factors import MANY, factors_of, parts_of

PARENTS = {"a": "p1", "b": "p1", "c": "p2", "d": "p3"}


def test_factors_that_tell_the_same_models_apart_are_one():
    models = {
        "a": {"optimizer": "sgd", "epochs": 1, "batch_size": 8},
        "b": {"optimizer": "adamw", "epochs": 2, "batch_size": 8},
    }
    (factor,) = factors_of(models, dict.fromkeys(models), {})
    assert (factor.name, factor.equivalent) == ("optimizer", ("epochs",))
    assert factor.labels.to_dict() == {"a": "sgd", "b": "adamw"}


def test_names_are_short_where_that_is_clear():
    models = {
        "a": {"optimizer": "sgd", "optimizer.lr": 1, "head": "x", "head.seed": 1, "seed": 2},
        "b": {"optimizer": "sgd", "optimizer.lr": 2, "head": "x", "head.seed": 1, "seed": 2},
        "c": {"optimizer": "sgd", "optimizer.lr": 1, "head": "x", "head.seed": 2, "seed": 2},
        "d": {"optimizer": "sgd", "optimizer.lr": 1, "head": "x", "head.seed": 2, "seed": 3},
    }
    names = [factor.name for factor in factors_of(models, dict.fromkeys(models), {})]
    assert names == ["lr", "head.seed", "seed"]


def test_parents_and_what_varies_among_them_are_factors_too_the_objective_first():
    theirs = {
        "p1": {"head": "linear", "objective": "supervised", "seed": 1},
        "p2": {"head": "linear", "objective": "supervised", "seed": 2},
        "p3": {"head": "mlp", "objective": "simclr", "seed": 0},
    }
    own = {id: {"optimizer.lr": 1} for id in PARENTS}
    parent, objective = factors_of(own, PARENTS, theirs)
    assert (parent.name, parent.equivalent) == ("parent", ("parent's seed",))
    assert (objective.name, objective.equivalent) == ("parent's objective", ("parent's head",))
    assert objective.labels.tolist() == ["supervised"] * 3 + ["simclr"]


def test_many_numbers_are_three_ranges_but_seeds_are_not():
    ids = [str(number) for number in range(3 * MANY)]
    models = {id: {"optimizer.lr": 1.0 + int(id), "seed": int(id) // 2} for id in ids}
    rate, seed = factors_of(models, dict.fromkeys(ids), {})
    assert rate.labels.value_counts().tolist() == [MANY] * 3
    assert rate.values == ["1 to 8.67", "8.67 to 16.3", "16.3 to 24"]
    assert len(seed.values) == 3 * MANY // 2


def test_a_factor_of_which_each_model_has_its_own_value_makes_no_groups():
    models = {id: {"seed": place} for place, id in enumerate(PARENTS)}
    (factor,) = factors_of(models, dict.fromkeys(models), {})
    assert factor.is_individual
    assert factor.values == ["0", "1", "2", "3"]


def test_ranges_hold_each_number_between_their_bounds():
    values = pd.Series([0.1, 0.2, 0.3, 0.9, None], index=[*"abcde"])
    labels = parts_of(values, 2)
    assert labels["e"] == "none"
    for id, label in labels.items():
        if label != "none":
            low, high = map(float, label.split(" to "))
            assert low <= values[id] <= high
