"""`vitarium study`, as a user types it."""

import json
from dataclasses import fields

import pandas as pd
import pytest

from vitarium import study
from vitarium.core import registry
from vitarium.core.config import NoConfig
from vitarium.core.errors import NotWritable
from vitarium.lineage.base import Edge, Forest
from vitarium.lineage.files.forests import read_json
from vitarium.lineage.recover import ModelGroup, Recovered
from vitarium.lineage.scores import Scores
from vitarium.zoo.verify import verify


def test_sentences_are_printed_and_page_and_figures_written(vitarium, grown_zoo, tmp_path):
    out, figures = tmp_path / "page.html", tmp_path / "figures"
    status, message, err = vitarium(
        "study", "diversity", grown_zoo.path, "--out", out, "--figures", figures,
        "--set", "n_resamples=50", "--set", "measure_missing=false", "--set", 'embeddings=["pca"]', "--where", "stage = 'finetune'",
    )  # fmt: skip
    assert status == 0, err
    assert message.startswith("finetune: 4 models reach a mean test accuracy of ")
    assert "**" not in message
    count = len(list(figures.iterdir()))
    assert err == f"page written to {out}, {count} figures to {figures}\n"
    assert (figures / "finetune-accuracy-over-epochs.svg").read_text().startswith("<svg")
    assert out.read_text().startswith("<!doctype html>")


def test_tables_are_csv_and_models_are_named(vitarium, grown_zoo, tmp_path):
    children = list(grown_zoo.models(where="stage = 'finetune'")["id"])
    out, folder = tmp_path / "page.html", tmp_path / "tables"
    status, message, err = vitarium(
        "study", "diversity", grown_zoo.path, *[id[:8] for id in children[:3]], "--out", out,
        "--csv", folder, "--set", "n_resamples=50", "--set", "measure_missing=false",
        "--set", 'embeddings=["pca"]',
    )  # fmt: skip
    assert status == 0, err
    assert message.startswith("finetune: 3 models reach a mean test accuracy of ")
    files = sorted(folder.iterdir())
    assert f", {len(files)} tables to {folder}" in err
    result = study(
        grown_zoo, "diversity", models=children[:3], n_resamples=50, measure_missing=False,
        embeddings=["pca"],
    )  # fmt: skip
    assert len(files) == len(list(result))
    shapes = sorted(pd.read_csv(file).shape for file in files)
    assert shapes == sorted(result[title].shape for title in result)


QUICK = ("--set", "n_resamples=20", "--no-measure-missing", "--embeddings", "pca")


def test_a_page_of_a_zoo_lies_in_the_zoo(vitarium, grown_zoo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, _, err = vitarium("study", "diversity", grown_zoo.path, *QUICK)
    page = grown_zoo.path / "studies" / "diversity.html"
    assert status == 0, err
    assert err == f"page written to {page}\n"
    assert '<meta name="vitarium-study" content="diversity">' in page.read_text()
    assert [*page.parent.iterdir()] == [page]
    assert verify(grown_zoo.path) == []
    before = page.read_bytes()
    out = tmp_path / "elsewhere.html"
    status, _, err = vitarium(
        "study", "diversity", grown_zoo.path, *QUICK, "--where", "stage = 'finetune'", "--out", out
    )
    assert status == 0, err
    assert out.is_file()
    assert page.read_bytes() == before
    assert not (tmp_path / "diversity.html").exists()


def test_of_a_lineage_the_forest_lies_there_too(vitarium, asked, grown_zoo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    forest = tmp_path / "forest.json"
    status, _, err = vitarium("study", "lineage", grown_zoo.path, *MADE_UP, "--json", forest)
    assert status == 0, err
    folder = grown_zoo.path / "studies"
    assert err == (
        f"page written to {folder / 'lineage.html'}, json to {folder / 'lineage.json'}, "
        f"json to {forest}\n"
    )
    assert forest.read_bytes() == (folder / "lineage.json").read_bytes()
    assert read_json(forest).forest.models[0] == "base"


def test_of_a_folder_of_weights_the_page_lies_here(vitarium, asked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").mkdir()
    status, _, err = vitarium("study", "lineage", "weights", *MADE_UP)
    assert status == 0, err
    assert err == "page written to lineage.html\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lineage.html", "weights"]


def test_a_zoo_that_cannot_be_written_says_where_else(vitarium, asked, grown_zoo, monkeypatch):
    def refuse(path):
        raise NotWritable(path, "the disk can only be read", "copy the zoo")

    monkeypatch.setattr("vitarium.cli.studies.check_file", refuse)
    status, _, err = vitarium("study", "lineage", grown_zoo.path, *MADE_UP)
    assert status == 1
    assert "can only be read; copy the zoo, or write the page elsewhere: --out FILE" in err
    assert not asked


def test_nothing_is_written_through_a_link_out_of_the_zoo(vitarium, asked, grown_zoo, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (grown_zoo.path / "studies").symlink_to(outside)
    status, _, err = vitarium("study", "lineage", grown_zoo.path, *MADE_UP)
    assert status == 1
    assert "leads out of" in err
    assert not asked
    assert [*outside.iterdir()] == []


def test_wrong_settings_are_one_line(vitarium, grown_zoo, tmp_path):
    status, _, err = vitarium(
        "study",
        "diversity",
        grown_zoo.path,
        "--out",
        tmp_path / "x.html",
        "--set",
        "confidence_level=2",
    )
    assert status == 2
    assert "confidence_level" in err
    assert not (tmp_path / "x.html").exists()


def test_soups_are_studied_by_a_command(vitarium, grown_zoo, tmp_path):
    out = tmp_path / "soups.html"
    status, message, err = vitarium(
        "study", "soups", grown_zoo.path, "--out", out, "--set", 'methods=["uniform_soup"]',
        "--set", "points=3", "--set", "n_resamples=20", "--num-images", "40",
    )  # fmt: skip
    assert status == 0, err
    assert message.startswith(
        "finetune: The uniform soup of one parent's children against the best of "
    )
    assert err == f"page written to {out}\n"
    status, _, err = vitarium(
        "study", "soups", grown_zoo.path, "--where", "stage = 'pretrain'", "--out", out,
        "--set", 'methods=["uniform_soup"]',
    )  # fmt: skip
    assert status == 2
    assert "no model has two finished children" in err


@pytest.fixture
def asked(monkeypatch):
    """What the study of lineage asks for; whatever it is, 70 models of one parent are found."""
    models = ["base", *(f"child-{number:02d}" for number in range(70))]
    edges = [Edge("base", child, 0.97) for child in models[1:]]
    forest = Forest("descent", models, [0] * 71, edges, {"base": 1.0})
    truth = {"base": ()} | dict.fromkeys(models[1:], ("base",))
    found = Recovered(
        forest,
        truth,
        _scores(),
        {},
        {},
        [ModelGroup(models, 9, 1.0)],
        {"base": {"stage": "x"}},
    )
    kept = {}

    def recover(source, method, **settings):
        kept.update(settings, source=source, method=method.name)
        return found

    monkeypatch.setattr("vitarium.studies.lineage.study.recover", recover)
    registry.plugins("lineage")
    plugin = registry.Plugin("lineage", "made_up", lambda *_: None, NoConfig, {})
    monkeypatch.setitem(registry._plugins["lineage"], "made_up", plugin)
    return kept


def _scores():
    known = {"node_accuracy": 1.0, "adjusted_rand_index": 1.0}
    return Scores(**(dict.fromkeys(field.name for field in fields(Scores)) | known))


MADE_UP = ("--method", "made_up", "--compare", "none")


def test_a_lineage_is_told_and_written(vitarium, asked, tmp_path):
    out, forest, graph = tmp_path / "x.html", tmp_path / "x.json", tmp_path / "x.graphml"
    status, message, err = vitarium(
        "study", "lineage", tmp_path, *MADE_UP, "--out", out, "--json", forest,
        "--graphml", graph, "--figures", tmp_path / "figures", "--trees", "1",
        "--csv", tmp_path / "tables",
    )  # fmt: skip
    assert status == 0, err
    lines = message.splitlines()
    assert "a forest of 71 models in 1 tree, with 1 root and 70 edges" in lines[0]
    assert lines[0].endswith("The number of trees was given.")
    assert "**" not in message
    tree = lines[lines.index("") + 1 :]
    assert tree[0] == "base  root 100 %   x"
    assert tree[1] == "├─ child-00  97 %"
    assert tree[-1] == "… 11 more models; see the page"
    assert len(tree) == 61
    assert err == (
        f"page written to {out}, 6 figures to {tmp_path / 'figures'}, "
        f"4 tables to {tmp_path / 'tables'}, json to {forest}, graphml to {graph}\n"
    )
    assert len(list((tmp_path / "tables").glob("*.csv"))) == 4
    assert "child-69" in out.read_text()
    assert isinstance(json.loads(forest.read_text()), dict)
    assert "<graphml" in graph.read_text()
    assert asked["trees"] == 1
    assert str(asked["source"]) == str(tmp_path)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ([], {"trees": None, "truth": None, "epochs": "last", "where": ""}),
        (["--truth", "--epochs", "all"], {"truth": True, "epochs": "all"}),
        (["--no-truth", "--where", "lr = 1"], {"truth": False, "where": "lr = 1"}),
        (["--trees", "auto"], {"trees": None, "compare": []}),
    ],
)
def test_options_of_a_lineage_are_passed_on(vitarium, asked, tmp_path, options, wanted):
    out = tmp_path / "x.html"
    status, _, err = vitarium("study", "lineage", tmp_path, *MADE_UP, "--out", out, *options)
    assert status == 0, err
    assert {key: asked[key] for key in wanted} == wanted


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--trees", "0"], "trees: "),
        (["--trees", "many"], "trees: "),
        (["--method", "made_upp"], "did you mean 'made_up'"),
        (["--set", "weight=2"], "has no setting 'weight'"),
    ],
)
def test_wrong_options_of_a_lineage_are_one_line(vitarium, asked, tmp_path, options, fault):
    out = tmp_path / "x.html"
    status, _, err = vitarium("study", "lineage", tmp_path, *MADE_UP, "--out", out, *options)
    assert status == 2
    assert fault in err
    assert not asked
    assert not out.exists()
