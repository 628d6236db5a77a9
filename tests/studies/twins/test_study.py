"""The study of twins of a real zoo: its numbers are those of the measures, and its page says how."""

import json
import re
import shutil

import pytest
import torch

import vitarium
from vitarium.blueprint.spec import restored
from vitarium.core.errors import InvalidInput
from vitarium.studies.twins.families import find_twins
from vitarium.testing._tiny_zoo import tiny_zoo
from vitarium.zoo import About

QUICK = {"runs": 2, "threads": 1, "n_resamples": 20, "num_images": 80}


@pytest.fixture(scope="module")
def _prepared(tmp_path_factory):
    """Twins of two children of one parent: of both with fewer tokens and with shared weights, and
    of a twin."""
    folder = tmp_path_factory.mktemp("twins") / "zoo"
    with tiny_zoo({"depth": 2}) as tiny:
        children = tiny.models(measured=False)
        children = children[children["stage"] == "finetune"]
        siblings = sorted(children.groupby("parent").get_group(children["parent"].min())["id"])
        twins = {}
        for child in siblings:
            twins[child, "tome"] = vitarium.merge(tiny, "tome", models=[child], r=1).id
            twins[child, "minivit"] = vitarium.merge(tiny, "minivit", models=[child], share=2).id
        again = {"models": [siblings[0]], "structure": "low_rank", "rank": 8}
        low_rank = vitarium.merge(tiny, "structured_projection", **again).id
        twins[siblings[0], "structured_projection"] = low_rank
        shutil.copytree(tiny.path, folder)
    return folder, siblings, twins


@pytest.fixture
def zoo(_prepared, tmp_path):
    return vitarium.Zoo.open(shutil.copytree(_prepared[0], tmp_path / "zoo"))


@pytest.fixture
def siblings(_prepared):
    return _prepared[1]


@pytest.fixture
def twins(_prepared):
    return _prepared[2]


@pytest.fixture(scope="module")
def result(_prepared, tmp_path_factory):
    """The study of a copy, with its page."""
    folder = tmp_path_factory.mktemp("study")
    zoo = shutil.copytree(_prepared[0], folder / "zoo")
    return vitarium.study(zoo, "twins", out=folder / "page.html", **QUICK)


def test_every_twin_stands_beside_its_original(result, siblings, twins):
    table = result["Twins"]
    assert set(table["model"]) == {*siblings, *twins.values()}
    for child in siblings:
        rows = table[table["original"].str.startswith(child)]
        assert set(rows["model"]) == {child, *(id for (of, _), id in twins.items() if of == child)}
        assert rows["method"].iloc[0] == "original"


def test_numbers_are_those_of_the_measures(result, zoo, twins):
    table = result["Twins"].set_index("model")
    names = ["accuracy", "calibration_error", "parameters", "flops", "peak_memory"]
    values = vitarium.measure(zoo, names, models=list(table.index), num_images=80)
    values = values[values["part"] == ""].pivot(index="model", columns="measure", values="value")
    for model, row in table.iterrows():
        expected = values.loc[model]
        assert row["accuracy"] == pytest.approx(expected["accuracy"])
        assert row["calibration error"] == pytest.approx(expected["calibration_error"])
        assert row["parameters"] == expected["parameters"]
        assert row["MFLOPs"] == pytest.approx(expected["flops"] / 1e6)
        assert row["peak MB"] == pytest.approx(expected["peak_memory"] / 1e6)
        assert row["kB"] == zoo.checkpoint(model).nbytes / 1e3
    changes = table["accuracy"] - table["accuracy"].groupby(table["original"]).transform("first")
    of_twins = table.loc[list(twins.values())]
    assert of_twins["change"].tolist() == pytest.approx(changes[of_twins.index].tolist())
    assert ((of_twins["won"] - of_twins["lost"]) / 80).tolist() == pytest.approx(
        of_twins["change"].tolist()
    )


def test_agreement_is_that_of_the_measure(result, zoo, siblings, twins):
    child = siblings[0]
    twin = twins[child, "minivit"]
    pair = vitarium.measure(zoo, "agreement", models=[child, twin], pairs="all", num_images=80)
    value = pair[pair["part"] == ""]["value"].item()
    row = result["Twins"].set_index("model").loc[twin]
    assert row["agreement"] == pytest.approx(value)


def test_times_are_of_pairs_and_threads_are_stated(result):
    table = result["Twins"]
    times = table[table["method"] != "original"]
    assert (table["ms"] > 0).all()
    assert (times["times as fast low"] <= times["times as fast"]).all()
    page = result.page.read_text()
    assert re.search(r"by\s+<b>1</b> thread, float32", page)


def test_methods_are_compared_over_originals(result):
    table = result["Methods"].set_index("method")
    assert table.loc["tome r=1", "originals"] == 2
    assert table.loc["tome r=1", "parameters, share"] == 1
    assert table.loc["tome r=1", "FLOPs, share"] < 1
    assert any("tome r=1 changes the accuracy" in line for line in result.sentences)


def test_soups_are_of_twins_whose_originals_have_one_parent(result, zoo, siblings, twins):
    table = result["Soups of twins"].set_index("method")
    assert set(table.index) == {"tome r=1", "minivit"}
    members = [twins[child, "tome"] for child in siblings]
    soup = vitarium.merge(zoo, "uniform_soup", models=members).id
    values = vitarium.measure(zoo, "accuracy", models=[soup], num_images=80)
    accuracy = values[values["part"] == ""]["value"].item()
    assert table.loc["tome r=1", "soup"] == pytest.approx(accuracy)


def test_twins_with_the_weights_of_their_original_are_tied_to_it(result):
    table = result["Recovered parents"].set_index("method")
    right = table.loc["tome", [c for c in table.columns if c.startswith("yes")]].sum()
    assert right == table.loc["tome", "twins"] == 2
    assert any("Lineage recovery finds the parents of" in line for line in result.sentences)


def test_a_twin_of_a_twin_has_the_original_of_both(zoo, siblings, twins):
    first = twins[siblings[0], "tome"]
    ingredients = [{"model": first, "epoch": 0}]
    second = keep_twin(zoo, first, ingredients, {"name": "evit", "keep_rate": 0.5})
    ((original, listed),) = find_twins(zoo, [second])[0].items()
    assert original.model == siblings[0]
    (twin,) = listed
    assert (twin.ref.model, twin.parent.model) == (second, first)
    assert twin.method == "tome r=1 + evit keep_rate=0.5"
    assert twin.method_name == "tome + evit"


def test_a_twin_that_is_trained_is_a_twin_and_what_it_is_fine_tuned_to_is_none(zoo, siblings):
    options = {"models": [siblings[0]], "epochs": 1, "workers": 0, "progress": False, "r": 2}
    (student,) = vitarium.compress(zoo, "tome", **options).students.values()
    assert zoo.spec(student).recipe.objective.name == "soft_distillation"
    assert [twin.method for twin in find_twins(zoo, [student])[0].popitem()[1]] == [
        "tome r=2 + trained"
    ]
    spec = zoo.spec(student).factors() | {"parent": student, "conversion": None}
    fine_tuned = restored({**spec, "parent_epoch": 1, "keep_head": False, "stage": "other"})
    assert keep(zoo, fine_tuned, zoo.state_dict(student))
    assert find_twins(zoo, [fine_tuned.id]) == ({}, [])
    going_on = restored({**spec, "parent_epoch": 1, "keep_head": True})
    keep(zoo, going_on, zoo.state_dict(student))
    ((_, (twin,)),) = find_twins(zoo, [going_on.id])[0].items()
    assert twin.method == "tome r=2 + trained + trained"


def test_what_is_made_of_twins_of_one_original_alone_is_a_twin(zoo, siblings, twins):
    own, other = (twins[child, "tome"] for child in siblings)
    again = vitarium.merge(zoo, "tome", models=[siblings[0]], r=2).id
    ingredients = [{"model": model, "epoch": 0} for model in (own, again)]
    soup = keep_twin(zoo, own, ingredients, {"name": "uniform_soup"})
    ((original, (twin,)),) = find_twins(zoo, [soup])[0].items()
    assert (original.model, twin.method) == (siblings[0], "uniform_soup")
    ingredients[1]["model"] = other
    of_both = keep_twin(zoo, own, ingredients, {"name": "uniform_soup"})
    assert find_twins(zoo, [of_both]) == ({}, [])


def test_what_cannot_be_measured_is_told_in_its_row(zoo, siblings, twins):
    whole = twins[siblings[0], "tome"]
    ingredients = [ref._asdict() for ref in zoo.spec(whole).ingredients]
    broken = keep_twin(zoo, whole, ingredients, {"name": "tome", "r": 2}, pos_embed=torch.nan)
    table = vitarium.study(zoo, "twins", models=[broken], **QUICK)["Twins"].set_index("model")
    row = table.loc[broken]
    assert "pos_embed has entries that are not finite" in row["not measured"]
    assert row["parameters"] == table["parameters"].iloc[0]
    assert table["accuracy"].isna().tolist() == [False, True]


def keep_twin(zoo, like, ingredients, operator, **filled):
    """A model like another, by another operator and with some tensors filled; its id."""
    factors = zoo.spec(like).factors() | {"operator": operator, "ingredients": ingredients}
    weights = zoo.state_dict(like)
    for name, value in filled.items():
        weights[name] = weights[name].fill_(value)
    return keep(zoo, restored(factors), weights)


def keep(zoo, spec, weights):
    folder = zoo.folder(spec.id)
    folder.begin(spec, About(10, tuple("0123456789"), {}))
    folder.commit(1, {}, weights, None)
    folder.finish("finished")
    return spec.id


def test_twins_of_an_original_that_is_gone_are_left_out(zoo, siblings, twins):
    shutil.rmtree(zoo.path / "models" / siblings[0])
    by_original, left_out = find_twins(zoo, zoo.ids())
    assert [ref.model for ref in by_original] == [siblings[1]]
    assert {twin.ref.model for twin in left_out} == {
        id for (of, _), id in twins.items() if of == siblings[0]
    }


def test_without_twins_it_says_what_makes_them(grown_zoo):
    with pytest.raises(InvalidInput, match="no model has a twin; `vitarium compress` makes one"):
        vitarium.study(grown_zoo, "twins")


def test_times_are_measured_once(zoo, siblings, monkeypatch):
    first = vitarium.study(zoo, "twins", models=[siblings[0]], **QUICK)["Twins"]
    monkeypatch.setattr("vitarium.studies.twins.measured.paired_seconds", None)
    again = vitarium.study(zoo, "twins", models=[siblings[0]], **QUICK)["Twins"]
    assert again["ms"].tolist() == first["ms"].tolist()
    with pytest.raises(TypeError):
        vitarium.study(zoo, "twins", models=[siblings[0]], **{**QUICK, "runs": 3})


def test_lost_images_are_pictures(zoo, siblings, tmp_path):
    result = vitarium.study(zoo, "twins", models=[siblings[0]], figures=tmp_path, **QUICK)
    sheets = [figure for figure in result.tables.figures if "lost" in figure.name]
    if result["Twins"]["lost"].sum() == 0:
        assert not sheets
        return
    (sheet,) = sheets
    assert "data:image/png;base64," in json.dumps(sheet.spec)
    assert (tmp_path / f"{sheet.name}.png").exists()
