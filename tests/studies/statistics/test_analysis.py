"""What explains a population is found, and told with the numbers that it was found by."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from studies.conftest import made_up
from vitarium.studies.diversity.sentences import sentences
from vitarium.studies.statistics.analysis import analyze, kinship, nearest_of_same_label, squared_of
from vitarium.studies.statistics.bootstrap import Bootstrap
from vitarium.studies.statistics.variance import Mixed, explained

BOOTSTRAP = Bootstrap(n_resamples=200)


@pytest.fixture(scope="module")
def analysis(stage):
    return analyze(stage, BOOTSTRAP)


def test_the_factor_that_made_the_differences_is_found(analysis):
    assert analysis.of("accuracy")[0].factor.name == "lr"
    assert analysis.of("weight_l2")[0].factor.name == "parent"
    assert analysis.of("agreement")[0].factor.name == "parent"
    clear = {(f.measure, f.factor.name) for f in analysis.effects if f.is_clear}
    assert ("accuracy", "lr") in clear
    assert ("weight_l2", "parent") in clear
    assert not {factor for measure, factor in clear if factor == "head"}


def test_four_parents_of_two_kinds_are_too_few_to_tell_kinds_apart(analysis):
    (effect,) = [f for f in analysis.of("weight_l2") if f.factor.name == "parent's objective"]
    assert not effect.is_clear


def test_p_is_corrected_for_the_number_of_factors(analysis, stage):
    (effect,) = [f for f in analysis.of("accuracy") if f.factor.name == "head"]
    alone = explained(
        (stage.values["accuracy"].to_numpy()[:, None] - stage.values["accuracy"].to_numpy()) ** 2,
        effect.factor.labels.tolist(),
        bootstrap=BOOTSTRAP,
    )
    assert effect.p == min(1, alone.p * len(stage.groups))


def test_the_mixed_model_gives_the_learning_rate_its_share(analysis):
    found = analysis.mixed_models["accuracy"]
    assert isinstance(found, Mixed)
    assert found.fixed > 0.9
    assert found.p["lr"] < 1e-6


def test_kin_are_every_pair_once(stage, analysis):
    kin = kinship(stage)
    assert [each.pairs for each in kin] == [4 * 15, 2 * 36, 4 * 36]
    assert sum(each.mask.astype(int) for each in kin).max() == 1


def test_the_nearest_model_of_another_parent_tells_kinds_apart():
    place = np.array([0.0, 0.1, 1.0, 1.1, 9.0, 9.1])
    squared = (place[:, None] - place) ** 2
    labels, parents = ["x", "x", "x", "x", "y", "y"], ["a", "a", "b", "b", "c", "c"]
    hits, chance = nearest_of_same_label(squared, labels, parents, BOOTSTRAP)
    assert hits.value == 1  # of the four that have a cousin of their kind
    assert chance == 0.5
    assert (
        nearest_of_same_label(squared, ["x", "x", "y", "y", "z", "z"], parents, BOOTSTRAP) is None
    )


def test_models_without_a_distance_are_left_out(stage):
    matrix = stage.pairs["agreement"].copy()
    matrix[3, :] = matrix[:, 3] = np.nan
    changed = dataclasses.replace(stage, pairs={"agreement": matrix})
    squared, places = squared_of(changed, "agreement")
    assert places.tolist() == [place for place in range(24) if place != 3]
    assert squared[0, 1] == pytest.approx(1 - matrix[0, 1])


def test_sentences_have_the_numbers_that_were_computed(stage, analysis):
    message = sentences(analysis, BOOTSTRAP)
    mean = BOOTSTRAP.mean(stage.values["accuracy"].to_numpy())
    first = message.headlines[0].replace("\xa0", " ")
    assert f"**{100 * mean.value:.1f} %**" in first
    assert f"95 % CI {100 * mean.low:.1f} to {100 * mean.high:.1f}" in first
    best = analysis.of("accuracy")[0].explained.eta_squared
    assert f"lr explains η² = **{100 * best.value:.0f}\xa0%**" in message.headlines[1]
    assert "Modes are separated in **predictions** by parent" in message.headlines[2]
    assert any("only 2 simclr and 2 supervised parents" in line for line in message.headlines)


def test_every_sentence_with_a_mean_has_an_interval(analysis):
    message = sentences(analysis, BOOTSTRAP)
    for line in [*message.headlines, *message.details]:
        assert "CI" in line or "only 2 simclr" in line, line


def test_a_population_of_copies_has_no_variety(stage):
    same = {name: np.ones((24, 24)) for name in ("agreement", "cka")} | {
        "weight_l2": np.zeros((24, 24))
    }
    for matrix in same.values():
        np.fill_diagonal(matrix, np.nan)
    copies = dataclasses.replace(
        stage,
        pairs=same,
        models=stage.models.assign(accuracy=0.5),
        values=pd.DataFrame({"accuracy": 0.5}, index=stage.ids),
    )
    analysis = analyze(copies, BOOTSTRAP)
    assert analysis.effects == []
    assert analysis.mixed_models["accuracy"] == "it is the same for all models"
    message = " ".join(
        [*sentences(analysis, BOOTSTRAP).headlines, *sentences(analysis, BOOTSTRAP).details]
    )
    assert "no variety in predictions" in message
    assert "are not clearly distinct" in message


def test_many_parents_make_the_interval_about_parents():
    """Sixteen parents whose kind means nothing: no claim that it does, and no warning."""
    stage = made_up(48, 16)
    message = sentences(analyze(stage, BOOTSTRAP), BOOTSTRAP).headlines
    assert not any("only" in line for line in message)
    assert any("are not clearly distinct" in line for line in message)
