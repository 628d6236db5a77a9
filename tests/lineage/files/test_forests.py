"""Forests in files: what is written is read back, and other programs open it."""

import json

import networkx
import numpy as np
import pytest

from vitarium.core.errors import CorruptFile, InvalidInput
from vitarium.lineage.base import Edge, Forest
from vitarium.lineage.files.forests import read_json, write_graphml, write_json
from vitarium.lineage.scores import scores

FOREST = Forest(
    "hand",
    ("a", "b", "c", "soup", '<&>"é'),
    (0, 0, 0, 0, 1),
    (
        Edge("a", "b", 0.9),
        Edge("a", "c", 0.8, kind="quantized"),
        Edge("b", "soup", 0.7, 0.25, "merged"),
        Edge("c", "soup", 0.7, 0.75, "merged"),
    ),
    {"a": 0.97, '<&>"é': 1.0},
    (("b", "c"),),
    ("Two models are copies.",),
    {"c": {"a": 0.8, "": 0.2}},
)
TRUTH = {"a": (), "b": ("a",), "c": ("b",), "soup": ("b", "c"), '<&>"é': ()}
INFO = {
    "a": {"stage": "pretrain", "accuracy": 0.5, "factors": {"lr": 0.1, "heads": [1, 2]}},
    "b": {"stage": "finetune", "accuracy": None, "factors": {"lr": "auto"}},
}


def test_json_gives_back_what_was_written(tmp_path):
    scored = scores(FOREST, TRUTH)
    write_json(FOREST, tmp_path / "forest.json", TRUTH, scored, INFO)
    stored = read_json(tmp_path / "forest.json")
    assert stored.forest == FOREST
    assert stored.truth == TRUTH
    assert stored.scores == scored
    assert stored.info == INFO


def test_truth_scores_and_info_may_be_missing(tmp_path):
    write_json(FOREST, tmp_path / "forest.json")
    stored = read_json(tmp_path / "forest.json")
    assert stored.forest == FOREST
    assert (stored.truth, stored.scores, stored.info) == (None, None, {})


def test_the_layout_is_the_documented_one(tmp_path):
    write_json(FOREST, tmp_path / "forest.json", TRUTH, scores(FOREST, TRUTH), INFO)
    value = json.loads((tmp_path / "forest.json").read_text(encoding="utf-8"))
    assert (value["format"], value["version"], value["method"]) == ("vitarium lineage", 1, "hand")
    first = {"name": "a", "family": 0, "root": 0.97, "candidates": {}, "about": INFO["a"]}
    assert value["models"][0] == first
    last = {"name": "c", "family": 0, "root": None, "about": {}}
    assert value["models"][2] == last | {"candidates": {"a": 0.8, "": 0.2}}
    assert value["edges"][2] == {
        "parent": "b",
        "child": "soup",
        "confidence": 0.7,
        "share": 0.25,
        "kind": "merged",
        "change": "",
    }
    assert value["tied"] == [["b", "c"]]
    assert value["notes"] == ["Two models are copies."]
    assert value["truth"]["soup"] == ["b", "c"]
    assert value["scores"]["node_accuracy"] == 4 / 5


def test_numbers_of_numpy_are_written_as_numbers_and_those_that_are_none_as_null(tmp_path):
    half = np.float32(0.5)
    forest = Forest(
        "x", ["a", "b"], np.array([0, 0]), [Edge("a", "b", half, np.float64(1))], {"a": half}
    )
    info = {"a": {"accuracy": np.float64("nan"), "epoch": np.int64(3), "kept": np.bool_(True)}}
    write_json(forest, tmp_path / "forest.json", info=info)
    stored = read_json(tmp_path / "forest.json")
    assert stored.forest.edges == (Edge("a", "b", 0.5, 1.0),)
    assert stored.forest.families == (0, 0)
    assert stored.info == {"a": {"accuracy": None, "epoch": 3, "kept": True}}
    write_graphml(forest, tmp_path / "forest.graphml", info=info)
    assert networkx.read_graphml(tmp_path / "forest.graphml").nodes["a"]["epoch"] == 3


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"format": "other"}, CorruptFile, "no lineage that vitarium wrote"),
        ({"version": 2}, InvalidInput, "of version 2, and this vitarium reads 1; install"),
        ({"models": None}, CorruptFile, "makes no sense"),
        ({"models": [{"name": "a"}]}, CorruptFile, "makes no sense .*family"),
        ({"edges": [{"parent": "a"}]}, CorruptFile, "makes no sense .*child"),
        ({"models": []}, CorruptFile, "an edge of unknown models"),
    ],
)
def test_another_content_is_an_error_that_names_the_file(tmp_path, change, error, message):
    path = tmp_path / "forest.json"
    write_json(FOREST, path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(error, match=rf"forest\.json.*{message}"):
        read_json(path)


def test_no_json_no_object_and_no_file_are_errors_that_name_the_file(tmp_path):
    path = tmp_path / "forest.json"
    with pytest.raises(CorruptFile, match=r"forest\.json: the file is missing"):
        read_json(path)
    for text in ("{", "[]", "3", ""):
        path.write_text(text)
        with pytest.raises(CorruptFile, match=r"forest\.json"):
            read_json(path)


def test_members_that_later_versions_add_are_passed_over(tmp_path):
    path = tmp_path / "forest.json"
    write_json(FOREST, path, TRUTH, scores(FOREST, TRUTH))
    value = json.loads(path.read_text())
    for part in (value, value["models"][0], value["edges"][0], value["scores"]):
        part["new"] = 1
    path.write_text(json.dumps(value))
    assert read_json(path).forest == FOREST


def test_what_an_earlier_version_wrote_without_changes_is_read(tmp_path):
    path = tmp_path / "forest.json"
    write_json(FOREST, path)
    value = json.loads(path.read_text())
    for edge in value["edges"]:
        del edge["change"]
    path.write_text(json.dumps(value))
    assert read_json(path).forest.edges == FOREST.edges


def test_graphml_opens_in_networkx_with_everything_that_is_known(tmp_path):
    write_graphml(FOREST, tmp_path / "forest.graphml", TRUTH, INFO)
    graph = networkx.read_graphml(tmp_path / "forest.graphml")
    assert graph.is_directed()
    assert graph.graph["method"] == "hand"
    assert list(graph.nodes) == list(FOREST.models)
    assert graph.nodes["a"] == {
        "label": "a",
        "family": 0,
        "root": 0.97,
        "stage": "pretrain",
        "accuracy": 0.5,
        "factors.lr": "0.1",  # a text for b, so for all
        "factors.heads": "[1, 2]",
    }
    assert graph.nodes["c"] == {"label": "c", "family": 0, "tied": 1}
    assert graph.edges["c", "soup"] == {
        "confidence": 0.7,
        "share": 0.75,
        "kind": "merged",
        "change": "",
        "right": True,
    }
    assert graph.edges["a", "c"]["right"] is False
    assert set(graph.edges) == {(edge.parent, edge.child) for edge in FOREST.edges}


def test_graphml_without_truth_says_nothing_of_right_and_wrong(tmp_path):
    write_graphml(FOREST, tmp_path / "forest.graphml")
    graph = networkx.read_graphml(tmp_path / "forest.graphml")
    assert all("right" not in about for _, _, about in graph.edges(data=True))


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    from pathlib import Path

    path = tmp_path / "forest.json"
    write_json(FOREST, path)
    before = path.read_bytes()

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    for write in (write_json, write_graphml):
        with pytest.raises(OSError, match="no space left"):
            write(FOREST, path, TRUTH)
    assert path.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["forest.json"]
