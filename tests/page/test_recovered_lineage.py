"""A recovered lineage beside the true one: as the study's page has it, whatever the file holds."""

import json
import random

import pytest

from vitarium.core.errors import CorruptFile, InvalidInput, UnknownName
from vitarium.lineage.base import Edge, Forest
from vitarium.lineage.files.forests import write_json
from vitarium.page.recovered_lineage import recovered_lineage
from vitarium.studies.lineage.evaluated import EvaluatedForest, Status
from vitarium.zoo import studies

STATUSES = {"right": Status.RIGHT, "tied": Status.TIED, "wrong": Status.WRONG}
STATUSES["unknown"] = Status.UNKNOWN


def store(zoo, forest, truth=None, name="lineage"):
    write_json(forest, studies.json_path(zoo, name), truth=truth)


def forest_of(edges, models, tied=(), candidates=None):
    children = {edge.child for edge in edges}
    roots = {model: 0.75 for model in models if model not in children}
    return Forest("descent", models, [0] * len(models), edges, roots, tied, (), candidates or {})


def test_it_says_what_the_study_recovered(tmp_path):
    edges = [Edge("a", "b", 0.9), Edge("a", "c", 0.6), Edge("b", "d", 0.7, 0.5)]
    edges.append(Edge("c", "d", 0.8, 0.5))
    candidates = {"c": {"a": 0.6, "b": 0.3, "": 0.1}, "a": {"": 0.75, "b": 0.25}}
    truth = {"a": (), "b": ("a",), "c": ("b",), "d": ("b", "c")}
    store(tmp_path, forest_of(edges, ["a", "b", "c", "d", "e"], candidates=candidates), truth)
    lineage = recovered_lineage(tmp_path, "lineage")
    assert lineage["method"] == "descent"
    a, b, c, d, e = lineage["models"]
    assert a == {
        "model": "a", "parents": [], "root": 0.75, "true_parents": [], "status": "right",
        "others": [{"model": "b", "probability": 0.25}],
    }  # fmt: skip
    assert (b["parents"], b["status"]) == ([{"model": "a", "probability": 0.9}], "right")
    assert (c["status"], c["true_parents"]) == ("wrong", ["b"])
    assert c["others"] == [
        {"model": "b", "probability": 0.3},
        {"model": "", "probability": 0.1},
    ]
    assert (d["status"], [parent["probability"] for parent in d["parents"]]) == (
        "right",
        [0.7, 0.8],
    )
    assert (e["status"], e["true_parents"]) == ("unknown", None)


@pytest.mark.parametrize("seed", range(30))
def test_what_is_right_is_what_the_studys_page_calls_so(tmp_path, seed):
    choose = random.Random(seed)
    models = [f"model-{number}" for number in range(12)]
    edges = [
        Edge(choose.choice(models[:number]), model, choose.random())
        for number, model in enumerate(models)
        if number and choose.random() < 0.8
    ]
    truth = {
        model: tuple(choose.sample(models[:number], min(number, choose.choice((0, 1, 1, 2)))))
        for number, model in enumerate(models)
        if choose.random() < 0.9
    }
    tied = [models[2:4], models[5:8]]
    forest = forest_of(edges, models, tied)
    store(tmp_path, forest, truth)
    expected = EvaluatedForest(forest, truth, {}).statuses
    shown = {m["model"]: m["status"] for m in recovered_lineage(tmp_path, "lineage")["models"]}
    assert {model: STATUSES[status] for model, status in shown.items()} == expected


def test_where_no_truth_is_stored_nothing_is_judged(tmp_path):
    store(tmp_path, forest_of([Edge("a", "b", 0.9)], ["a", "b"]))
    models = recovered_lineage(tmp_path, "lineage")["models"]
    assert [model["status"] for model in models] == ["unknown", "unknown"]


def corrupt(**changes):
    model = {"name": "a", "family": 0, "root": 1.0, "candidates": {}, "about": {}}
    other = model | {"name": "b", "root": None}
    edge = {"parent": "a", "child": "b", "confidence": 0.9, "share": 1.0, "kind": "trained"}
    forest_json = {"format": "vitarium lineage", "version": 1, "method": "descent"}
    forest_json |= {
        "models": [model, other],
        "edges": [edge],
        "tied": [],
        "notes": [],
        "truth": None,
    }
    return json.dumps(forest_json | changes | {"scores": None})


MODEL = {"name": "a", "root": 1.0}
FAULTS = [
    ("", "not valid JSON"),
    ("[" * 100_000, "not valid JSON"),
    ("[]", "no recovered lineage"),
    ('{"format": "other"}', "no recovered lineage"),
    (corrupt(version=0), "version"),
    (corrupt(models=[{"name": "<b>"}]), "models.0.root"),
    (corrupt(models=[MODEL, MODEL], edges=[]), "a model is in it twice"),
    (corrupt(models=[MODEL]), "an edge is of unknown models"),
    (corrupt(models=[MODEL | {"root": float("nan")}], edges=[]), "models.0.root"),
    (corrupt(models=[MODEL | {"root": 2}], edges=[]), "models.0.root"),
    (corrupt(models=[MODEL | {"name": "x" * 1000}], edges=[]), "models.0.name"),
    (corrupt(models=[MODEL | {"candidates": {"b": "<script>"}}], edges=[]), "candidates"),
    (corrupt(truth={"a": "b"}), "truth.a"),
    (corrupt(tied=[[1]]), "tied.0.0"),
    (corrupt(method=None), "method"),
]


@pytest.mark.parametrize(("content", "fault"), FAULTS)
def test_a_file_that_is_none_is_named(tmp_path, content, fault):
    file = studies.json_path(tmp_path, "lineage")
    file.parent.mkdir()
    file.write_text(content)
    with pytest.raises(CorruptFile, match=fault) as raised:
        recovered_lineage(tmp_path, "lineage")
    assert str(raised.value).startswith(f"corrupt file {file}: ")
    assert len(str(raised.value)) < len(str(file)) + 500


def test_the_parts_of_the_file_that_is_tested_are_one(tmp_path):
    file = studies.json_path(tmp_path, "lineage")
    file.parent.mkdir()
    file.write_text(corrupt())
    assert len(recovered_lineage(tmp_path, "lineage")["models"]) == 2


def test_a_newer_version_and_an_unknown_name_are_said_to_be_such(tmp_path):
    file = studies.json_path(tmp_path, "lineage")
    file.parent.mkdir()
    file.write_text(corrupt(version=2))
    with pytest.raises(InvalidInput, match="install a newer one"):
        recovered_lineage(tmp_path, "lineage")
    with pytest.raises(UnknownName, match="known: lineage"):
        recovered_lineage(tmp_path, "other")


def test_hidden_characters_in_names_are_shown(tmp_path):
    store(tmp_path, forest_of([], ["\u202eabc", "b"]))
    assert recovered_lineage(tmp_path, "lineage")["models"][0]["model"] == "\\u202eabc"


def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    store(tmp_path, forest_of([], ["a", "b"]))
    monkeypatch.setattr("vitarium.page.recovered_lineage.MAX_BYTES", 10)
    with pytest.raises(CorruptFile, match="bytes"):
        recovered_lineage(tmp_path, "lineage")
