"""`vitarium measure`: what it prints, and what it refuses."""

import json

import pytest


def test_measures_are_summarised_over_models_and_pairs(vitarium, grown_zoo):
    status, out, _ = vitarium("measure", grown_zoo.path, "accuracy", "agreement", "--pairs", "all")
    assert status == 0
    lines = out.splitlines()
    row = next(line.split() for line in lines if line.startswith("agreement "))
    assert row[1] == "15"


def test_without_a_name_the_quick_measures_of_single_models_are_taken(vitarium, grown_zoo):
    from vitarium.measures._runner.jobs import quick

    assert vitarium("measure", grown_zoo.path, "--json")[0] == 0
    measured = set(grown_zoo.query("SELECT DISTINCT measure FROM records")["measure"])
    assert "accuracy" in measured
    assert measured <= set(quick())


def test_models_epochs_and_settings_are_chosen(vitarium, grown_zoo):
    _, out, _ = vitarium(
        *("measure", grown_zoo.path, "weight_norm", "--where", "stage = 'pretrain'"),
        *("--epochs", "0,1", "--set", "order=1", "--json"),
    )
    rows = json.loads(out)
    assert {row["epoch"] for row in rows} == {0, 1}
    assert len({row["model"] for row in rows}) == 2
    assert {json.loads(row["settings"])["order"] for row in rows} == {1}


def test_what_cannot_be_measured_is_told_once_with_its_reason(vitarium, grown_zoo):
    asked = ("measure", grown_zoo.path, "accuracy", "--split", "train")
    status, _, errors = vitarium(*asked)
    assert status == 2
    assert "6 could not be measured" in errors
    assert errors.count("trained on these images") == 1
    assert "(6 times, e.g.)" in errors
    assert vitarium(*asked, "--force")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["acuracy"], "unknown measure 'acuracy'; did you mean 'accuracy'"),
        (["accuracy", "--epochs", "first"], "--epochs first: write all, last, or numbers"),
        (["accuracy", "--where", "lr > 100"], "no model fulfills the condition lr > 100"),
        (["accuracy", "--set", "tpo=3"], "unknown factor 'tpo'"),
        (["accuracy", "--set", "device=cpu"], "device is no setting of the plug-in; see --device"),
        (["cka", "--set", "num_images=8"], "num_images is no setting of the plug-in; see --num-im"),
        (["accuracy", "--epochs", "99"], "none of the 6 models has weights of epoch 99"),
    ],
)
def test_bad_input_is_one_clear_message(vitarium, grown_zoo, arguments, words):
    status, _, errors = vitarium("measure", grown_zoo.path, *arguments)
    assert status == 2
    assert words in errors


def test_without_a_pair_there_is_nothing_to_say(vitarium, grown_zoo):
    id = grown_zoo.ids()[0]
    status, out, err = vitarium("measure", grown_zoo.path, "cka", "--where", f"id = '{id}'")
    assert (status, out, err) == (0, "", "")
