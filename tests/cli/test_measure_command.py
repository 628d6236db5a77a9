"""`vitarium measure`: what it prints, and what it refuses."""

import csv
import io
import json
import re

import pytest


def test_measures_are_summarised_over_models_and_pairs(vitarium, grown_zoo):
    status, out, _ = vitarium("measure", grown_zoo.path, "accuracy", "agreement", "--pairs", "all")
    assert status == 0
    heading, _, *rows = out.partition(" by stage\n\n")[2].splitlines()
    columns = {"measure", "unit", "finetune", "pretrain", "finetune, pretrain (8)"}
    assert set(re.split(" {2,}", heading)) == columns
    of_pairs = grown_zoo.query(
        "SELECT avg(value) AS mean FROM records WHERE measure = 'agreement' AND part = '' "
        "AND (SELECT stage FROM models WHERE id = model) "
        "<> (SELECT stage FROM models WHERE id = other)"
    )
    (agreement,) = [row for row in rows if row.startswith("agreement ")]
    assert f" {of_pairs['mean'][0]:.4g} ± " in agreement


def test_the_number_of_models_stands_above_each_stage(vitarium, grown_zoo):
    out = vitarium("measure", grown_zoo.path, "weight_norm")[1]
    assert "finetune (4)  pretrain (2)" in out


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
    request = ("measure", grown_zoo.path, "accuracy", "--split", "train")
    status, _, errors = vitarium(*request)
    assert status == 2
    assert "without a value: 6" in errors
    assert errors.count("trained on these images") == 1
    assert "(6 times, e.g.)" in errors
    assert vitarium(*request, "--force")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["acuracy"], "unknown measure 'acuracy'; did you mean 'accuracy'"),
        (["accuracy", "--epochs", "first"], "--epochs first: write all, last, or numbers"),
        (["accuracy", "--where", "lr > 100"], "no model fulfills the condition lr > 100"),
        (
            ["accuracy", "--set", "tpo=3"],
            "measure 'accuracy' has no setting 'tpo'",
        ),
        (["accuracy", "--set", "device=cpu"], "device is no setting of the plug-in; see --device"),
        (["cka", "--set", "num_images=8"], "num_images is no setting of the plug-in; see --num-im"),
        (["accuracy", "--epochs", "99"], "none of the 6 models has weights of epoch 99"),
    ],
)
def test_bad_input_is_one_clear_message(vitarium, grown_zoo, arguments, words):
    status, _, errors = vitarium("measure", grown_zoo.path, *arguments)
    assert status == 2
    assert words in errors


def test_measures_of_pairs_need_a_pair(vitarium, grown_zoo):
    id = grown_zoo.ids()[0]
    status, out, err = vitarium("measure", grown_zoo.path, "cka", "agreement", id)
    assert (status, out) == (2, "")
    assert "cka, agreement: measured of pairs of models, and among those chosen there is" in err
    # with others that can be measured, these are
    status, out, err = vitarium("measure", grown_zoo.path, "weight_norm", "cka", id, "--json")
    assert status == 0
    assert {row["measure"] for row in json.loads(out)} == {"weight_norm"}
    assert "cka: measured of pairs" in err


def test_numbers_are_printed_by_model_and_by_stage(vitarium, grown_zoo):
    _, out, _ = vitarium("measure", grown_zoo.path, "accuracy")
    models = grown_zoo.models()
    assert models["accuracy"].notna().all()
    of_models, of_stages = out.split(": mean ± standard deviation by stage\n")
    for row in models.itertuples():
        line = next(line for line in of_models.splitlines() if line.startswith(row.id[:8]))
        assert line.split()[1:3] == [row.stage, f"{row.accuracy:.4g}"]
    line = next(line for line in of_stages.splitlines() if line.startswith("accuracy "))
    for _, group in models.groupby("stage"):
        mean, std = group["accuracy"].mean(), group["accuracy"].std(ddof=0)
        assert f" {mean:.4g} ± {std:.2g} " in line
    assert len([line for line in of_stages.splitlines() if line.startswith("accuracy")]) == 2


def test_numbers_are_csv(vitarium, grown_zoo):
    by_csv = vitarium("measure", grown_zoo.path, "accuracy", "--csv")[1]
    by_json = json.loads(vitarium("measure", grown_zoo.path, "accuracy", "--json")[1])
    rows = list(csv.DictReader(io.StringIO(by_csv)))
    assert [row["model"] for row in rows] == [row["model"] for row in by_json]
    assert [float(row["value"]) for row in rows] == [row["value"] for row in by_json]


def test_models_are_named_beside_measures(vitarium, grown_zoo):
    first, second, *_ = grown_zoo.ids()
    named = ("weight_norm", first[:6], f"{second[:6]}@1")
    rows = json.loads(vitarium("measure", grown_zoo.path, *named, "--json")[1])
    last = grown_zoo.at(first).epoch
    assert {(row["model"], row["epoch"]) for row in rows} == {(first, last), (second, 1)}
    assert {row["measure"] for row in rows} == {"weight_norm"}
    status, _, errors = vitarium("measure", grown_zoo.path, "accuracy", "ffff")
    assert status == 2
    assert "unknown model 'ffff'" in errors


@pytest.mark.parametrize(
    ("done", "words"),
    [(0, "Nothing was measured yet"), (2, "2 of 7 measurements are kept in {zoo}")],
)
def test_ctrl_c_says_how_many_numbers_are_kept(vitarium, grown_zoo, monkeypatch, done, words):
    from vitarium.measures._runner import measure as runner

    def interrupted(*arguments, progress, **settings):
        progress.step("measuring", done, 7)
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "measure", interrupted)
    status, _, errors = vitarium("measure", grown_zoo.path, "accuracy")
    assert status == 130
    state = words.format(zoo=grown_zoo.path)
    assert errors == f"\nStopped. {state}; run the same command to resume.\n"
