"""`vitarium merge`: what it makes, prints and refuses."""

import json

import pytest


@pytest.fixture
def children(grown_zoo):
    found = [id for id in grown_zoo.ids() if grown_zoo.spec(id).parent]
    parent = grown_zoo.spec(found[0]).parent
    return [id for id in found if grown_zoo.spec(id).parent == parent]


def test_models_are_merged_by_their_ids_or_by_a_condition(vitarium, grown_zoo, children):
    status, out, _ = vitarium(
        "merge", grown_zoo.path, *children, "--method", "uniform_soup", "--json"
    )
    assert status == 0
    (row,) = json.loads(out)
    assert row["method"] == "uniform_soup"
    assert row["ingredients"] == [f"{id}@1" for id in sorted(children)]
    parent = grown_zoo.spec(children[0]).parent
    same = vitarium(
        *("merge", grown_zoo.path, "--where", f"parent = '{parent}'"),
        *("--method", "uniform_soup", "--json"),
    )
    assert json.loads(same[1])[0]["model"] == row["model"]


def test_formats_that_exclude_each_other_are_refused_before_anything_is_merged(
    vitarium, grown_zoo, children
):
    before = grown_zoo.ids()
    request = ("merge", grown_zoo.path, *children, "-m", "multi_slerp", "--json", "--csv")
    status, _, err = vitarium(*request)
    assert (status, err) == (2, "error: choose one of --json and --csv\n")
    assert grown_zoo.ids() == before


def test_what_was_made_is_told_and_how_to_measure_it(vitarium, grown_zoo, children):
    request = ("merge", grown_zoo.path, *children, "-m", "uniform_soup", "--stage", "soups")
    status, out, errors = vitarium(*request)
    assert status == 0
    made = grown_zoo.query("SELECT id FROM models WHERE stage = 'soups'")["id"][0]
    assert made in out
    assert f"accuracy --where \"id = '{made}'\"" in errors
    again, _, errors = vitarium(*request[:-1], "others")
    assert again == 0
    assert f"model {made} is in the zoo already, of stage 'soups'" in errors
    shown = vitarium("show", grown_zoo.path, made)[1]
    assert "uniform_soup" in shown
    assert f"{children[0]}@1" in shown


def test_models_are_aligned_first_if_asked_for(vitarium, grown_zoo, children):
    request = ("merge", grown_zoo.path, *children, "-m", "uniform_soup", "--json")
    status, out, err = vitarium(*request, "--align", "weight_matching")
    assert status == 0
    (row,) = json.loads(out)
    first, aligned = (name.partition("@")[0] for name in row["ingredients"])
    assert first == sorted(children)[0]
    spec = grown_zoo.spec(aligned)
    assert (spec.stage, spec.operator.name) == ("aligned", "weight_matching")
    assert [one.model for one in spec.ingredients] == sorted(children)
    names = [f"{id[:8]}@1" for id in sorted(children)]
    copy = f"{names[1]} was aligned to {names[0]}: the copy {aligned[:8]} stays in the zoo, as a "
    assert f"{copy}model of stage 'aligned'\n" in err
    _, _, err = vitarium(*request, "--align", "weight_matching")
    assert f"the copy {aligned[:8]} was in the zoo already, as a model" in err


def test_all_methods_are_listed_with_what_they_need(vitarium):
    from vitarium.core import registry

    status, out, _ = vitarium("merge", "nowhere", "--method", "list")
    assert status == 0
    listed = {line.split()[0] for line in out.splitlines()[2:] if line and line[0].isalpha()}
    assert listed >= set(registry.plugins("operator"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--method", "uniform_sop"],
            "unknown operator 'uniform_sop'; did you mean 'uniform_soup'",
        ),
        (["--method", "uniform_soup"], "say which models to merge"),
        (["--where", "true"], "say how to merge (--method): activation_matching, "),
        (
            ["--method", "uniform_soup", "--where", "lr > 9"],
            "no model fulfills the condition lr > 9",
        ),
        (["zzz", "-m", "uniform_soup"], "unknown model 'zzz'"),
        (
            ["--where", "true", "-m", "uniform_soup", "--set", "x=1"],
            "operator 'uniform_soup' has no setting 'x'",
        ),
        (
            ["--where", "true", "-m", "uniform_soup", "--set", "stage=x"],
            "is no setting of the plug",
        ),
        (["--where", " ", "-m", "uniform_soup"], "say which models to merge"),
        (["--where", "true", "-m", "uniform_soup", "--base", "zzz"], "has no use for a base"),
    ],
)
def test_bad_input_is_one_clear_message(vitarium, grown_zoo, arguments, words):
    status, _, errors = vitarium("merge", grown_zoo.path, *arguments)
    assert status == 2
    assert words in errors


def test_several_values_of_a_setting_make_a_model_each_and_a_table(vitarium, grown_zoo, children):
    request = ("merge", grown_zoo.path, *children[:2], "-m", "interpolation", "--stage", "path")
    status, out, _ = vitarium(*request, "--grid", "t=0.25,0.75", "--json")
    assert status == 0
    rows = json.loads(out)
    assert [row["t"] for row in rows] == [0.25, 0.75]
    assert [grown_zoo.spec(row["model"]).operator.config.t for row in rows] == [0.25, 0.75]
    parameters = sum(weight.numel() for weight in grown_zoo.load(children[0]).parameters())
    assert [row["parameters"] for row in rows] == [parameters, parameters]
    assert all(0 <= row["accuracy"] <= 1 and not row["refused"] for row in rows)
    shown = vitarium(*request, "--grid", "t=0.25,0.75")[1].splitlines()
    assert shown[0].split()[:3] == ["model", "t", "parameters"]
    assert any(line.split()[0] == rows[1]["model"] for line in shown if line.strip())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--grid", "t=0.5,x"], "is not a valid number"),
        (["--grid", "t=0.5", "--grid", "t=0.6"], "t is named twice; write all its values as one"),
        (["--grid", "t=0.5", "--all"], "choose one of --grid and --all"),
        (["--grid", "t"], "--grid t: write NAME=VALUE, e.g. --grid t=0.25,0.5"),
        (["--all"], "which settings to take is not known; name values of some: --grid"),
        (["--grid", "t=0.5", "--set", "t=0.5"], "t has a value already"),
        (["--grid", "t=[" + ",".join(["0"] * 1001) + "]"], "make 1,001 models, and at most 1,000"),
    ],
)
def test_a_grid_that_cannot_be_made_is_one_clear_message(
    vitarium, grown_zoo, children, arguments, words
):
    before = grown_zoo.ids()
    request = ("merge", grown_zoo.path, *children[:2], "-m", "interpolation")
    status, _, errors = vitarium(*request, *arguments)
    assert status == 2
    assert words in errors
    assert grown_zoo.ids() == before
