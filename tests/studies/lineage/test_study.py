"""The study of lineage: what it asks, what it says, and its page."""

import dataclasses
import json
import re
from dataclasses import replace

import numpy as np
import pytest

import vitarium
from vitarium.core.errors import InvalidInput, NotAZoo, UnknownName
from vitarium.lineage.recover import ModelGroup
from vitarium.lineage.scores import scores
from vitarium.studies._runner.study import study
from vitarium.studies.report.figures import PALETTE

EVIL = '<img src=x onerror="alert(1)">'


@pytest.fixture
def studied(made_up_method, tmp_path):
    """Studies a made-up forest."""

    def run(recovered, **settings):
        made_up_method(recovered)
        out = tmp_path / "lineage.html"
        return study(tmp_path, "lineage", out=out, method="made_up", compare=[], **settings)

    return run


def tables_of(found) -> dict[str, list]:
    return {
        block.title: block.rows
        for section in found.tables.sections
        for block in section.blocks
        if hasattr(block, "rows")
    }


def test_it_asks_for_what_was_asked_for(made_up_method, forests, tmp_path):
    zoo = vitarium.Zoo.create(tmp_path / "zoo")
    request = made_up_method(forests.recovered())
    vitarium.study(
        zoo,
        "lineage",
        out=tmp_path / "x.html",
        method="made_up",
        settings={"weight": 2},
        compare=["made_up"],
        trees=3,
        truth=False,
        epochs="all",
        where="lr > 0.1",
    )
    assert request["source"] is zoo
    assert request["method"].factors() == {"name": "made_up", "weight": 2.0}
    assert request["trees"] == 3
    assert request["compare"] == []  # not with itself
    assert (request["truth"], request["epochs"], request["where"]) == (False, "all", "lr > 0.1")
    vitarium.study(tmp_path, "lineage", out=tmp_path / "x.html", method="made_up", compare=[])
    assert request["source"] == tmp_path
    assert (request["trees"], request["truth"], request["epochs"]) == (None, None, "last")


def test_faults_are_told_before_anything_is_read(made_up_method, tmp_path):
    request = made_up_method(None)
    for settings, fault in [
        ({"method": "mad_up"}, "did you mean 'made_up'"),
        ({"method": "made_up", "compare": ["mad_up"]}, "did you mean 'made_up'"),
        ({"method": "made_up", "settings": {"wait": 1}}, "has no setting 'wait'"),
        ({"method": "made_up", "trees": 0}, "trees"),
        ({"method": "made_up", "epochs": "first"}, "epochs"),
    ]:
        with pytest.raises((InvalidInput, UnknownName), match=fault):
            study(tmp_path, "lineage", out=tmp_path / "x.html", **settings)
    assert not request
    assert not (tmp_path / "x.html").exists()


def test_a_truth_that_nobody_knows_is_said_to_be_unknown(studied, forests):
    unknown = forests.recovered(known=False)
    assert "is not known here" in " ".join(studied(unknown).sentences)
    assert "was not looked at" in " ".join(studied(unknown, truth=False).sentences)


def test_models_whose_parents_nobody_told_are_no_part_of_the_sentences(studied, forests):
    """Of r1's tree the root is not known, and neither is r2c3."""
    recovery = forests.recovered(wrong=["r0c1g0"])
    truth = {m: parents for m, parents in recovery.truth.items() if m not in ("r1", "r2c3")}
    partial = studied(replace(recovery, truth=truth, scores=scores(recovery.forest, truth)))
    message = "\n".join(partial.sentences)
    assert "Of 2 models the true parents are not known; scores leave them out." in message
    assert "(36 of 37) have exactly their true parents" in message
    assert "34 of 35 recovered edges are true, and 1 of 35 true edges is missed" in message
    assert "2 of 2 true trees are recovered" in message
    assert "given the true roots" not in message
    lone = forests.recovered(1, 1, 0)
    alone = studied(replace(lone, truth={"r0c0": ("r0",)}, scores=None))
    assert "true tree" not in "\n".join(alone.sentences)


def test_sentences_have_the_numbers(studied, forests):
    found = studied(forests.recovered(wrong=["r0c1g0", "r2c3"], mixture=True))
    message = "\n".join(found.sentences)
    assert "a forest of 40 models in 3 trees, with 3 roots and 38 edges" in message
    assert "The number of trees was inferred." in message
    assert (
        "95.0\xa0% of models (38 of 40) have exactly their true parents; a true root has to"
        in message
    )
    assert "36 of 38 recovered edges are true, and 2 of 38 true edges are missed." in message
    assert (
        "3 of 3 true trees are recovered with exactly their models, and the roots of 3." in message
    )
    assert "Rand index" not in message
    assert "`mother` 40.0\xa0% and `nearest_root` 40.0\xa0%" in message
    assert '2 models read "cannot tell": the confidence is below 90\xa0%, and the' in message
    assert "Of these, 0 of 2 are right." in message
    assert "Of these, 38 of 38 are right." in message
    assert "1 model is a mixture of several parents" in message
    assert (
        "the 74 tensors that a group has in common hold at least 99.1\xa0% of the other" in message
    )
    assert "1 model or file was left out: `broken.safetensors`: block.0.weight has NaN." in message
    assert all(not line.startswith(":") for line in found.sentences)
    told = studied(forests.recovered(), trees=3)
    assert "The number of trees was given." in told.sentences[0]


def test_ties_kinds_and_notes_are_told(studied, forests):
    truth = forests.truth_of(1, 3, 0)
    forest = forests.forest_of(
        truth,
        kinds={"r0c0": "copy", "r0c1": "quantized", "r0c2": "copy"},
        tied=[["r0", "r0c0"]],
        notes=["Nothing is like **this**."],
    )
    scores = forests.scores_of(
        node_accuracy=0.5, node_accuracy_up_to_ties=1.0, mixtures_found=float("nan")
    )
    found = studied(forests.recovered(1, 3, 0, forest=forest, scores=scores, others=False))
    message = "\n".join(found.sentences)
    assert "2 models in 1 group have equal weights" in message
    assert "`r0`, `r0c0`" in message
    assert "If models with equal weights may stand for each other, it is 100.0\xa0%" in message
    assert "Among the children: 2 copied and 1 quantized." in message
    assert "Nothing is like this." in message
    assert "nan" not in message


def test_several_groups_and_all_models_are_in_tables(studied, forests):
    made = forests.recovered(3, 4, 2, wrong=["r2c3"], mixture=True)
    models = list(made.forest.models)
    groups = [ModelGroup(models[:13], 74, 0.9), ModelGroup(models[13:], 50, 1.0)]
    found = studied(dataclasses.replace(made, groups=groups))
    assert any("2 groups of 13 and 27 models" in line for line in found.sentences)
    tables = tables_of(found)
    assert [row[1] for row in tables["Models that can be compared"]] == ["13", "27"]
    listed = tables["All models and their parents"]
    assert {row[0] for row in listed} == set(models)
    assert len(listed) == len(made.forest.edges) + 3 + 1  # roots, and an edge that was missed
    (mistake,) = tables["Models with other parents than the true ones"]
    assert mistake[0] == "r2c3"
    assert mistake[2:] == ["r2c1", "r2", "wrong"]
    assert tables["Left out"] == [["broken.safetensors", "block.0.weight has NaN"]]


def test_doubtful_edges_come_the_least_sure_first(studied, forests):
    truth = forests.truth_of(1, 4, 0)
    sure = {"r0": 0.6, "r0c0": 0.85, "r0c1": 0.3, "r0c2": 0.9, "r0c3": 1.0}
    found = studied(forests.recovered(1, 4, 0, forest=forests.forest_of(truth, sure=sure)))
    (rows,) = [rows for title, rows in tables_of(found).items() if title.startswith("Uncertain")]
    assert [row[0] for row in rows] == ["r0c1", "r0", "r0c0"]
    assert [row[2] for row in rows] == ["r0", "none: a root", "r0"]


@pytest.mark.parametrize("more", [{}, {"known": False}, {"trees": 1, "children": 1}])
def test_the_page_has_every_model_and_needs_no_network(studied, forests, more):
    made = forests.recovered(**{"trees": 2, "children": 3, "grandchildren": 1} | more)
    html = studied(made).page.read_text()
    for model in made.forest.models:
        assert f"<td>{model}</td>" in html
    assert "Us 2026" in html
    specs = json.loads(re.search(r'(?s)id="specs">(.*?)</script>', html)[1])
    assert "tree" in specs
    assert ("scores" in specs) == (made.truth is not None)


def test_a_baseline_that_is_told_the_roots_is_said_to_be(made_up_method, forests, tmp_path):
    out = tmp_path / "x.html"
    for known in (True, False):
        made_up_method(forests.recovered(known=known))
        others = ["nearest_root", "mother"]
        html = study(
            tmp_path, "lineage", out=out, method="made_up", compare=others
        ).page.read_text()
        assert html.count("It was given the true roots.") == known


def test_names_and_reasons_stay_text(studied, forests):
    names = {"r0": (), EVIL: ("r0",)}
    made = forests.recovered(
        1,
        1,
        0,
        forest=forests.forest_of(names),
        truth=names,
        info={EVIL: {"factors": {"lr": EVIL}, "stage": EVIL, "file": EVIL}},
        left_out={EVIL: EVIL},
        groups=[ModelGroup(list(names), 3, 1.0)],
        others=False,
    )
    html = studied(made).page.read_text()
    body = re.sub(r"(?s)<script.*?</script>", "", html)
    assert "<img" not in body
    assert "&lt;img" in body
    assert html.count("<script") == html.count("</script>")


def test_the_same_models_give_the_same_page(studied, forests):
    made = forests.recovered(wrong=["r0c1g0"])
    assert studied(made).page.read_bytes() == studied(made).page.read_bytes()


def test_what_is_no_zoo_has_no_other_study(tmp_path):
    with pytest.raises(NotAZoo):
        study(tmp_path / "nothing", "diversity", out=tmp_path / "page.html")


@pytest.mark.slow
def test_the_page_is_drawn_in_a_browser(studied, forests, screenshot):
    """In the dark, too, which is the page's own matter: see the study of diversity's."""
    page = studied(forests.recovered(wrong=["r0c1g0", "r2c3"], mixture=True)).page
    image = np.asarray(screenshot(page)).astype(int)
    assert (image[200, 5] > 240).all()
    for color, least in ((PALETTE[0], 2000), (PALETTE[1], 200), (PALETTE[3], 60)):
        wanted = [int(color[place : place + 2], 16) for place in (1, 3, 5)]
        near = (np.abs(image - wanted) < 12).all(2)
        assert near.sum() > least
