"""The study of soups of a real zoo: its numbers, its page, and what it computes twice."""

import re
import shutil

import numpy as np
import pytest

import vitarium
from vitarium.core.config import NoConfig
from vitarium.core.errors import InvalidInput, UnknownName
from vitarium.core.registry import choose
from vitarium.evaluation.loader import ModelLoader
from vitarium.operators._runner.plan import MergePlan
from vitarium.operators.base import operator
from vitarium.studies.soups.experiments import BEST, ENSEMBLE, MEAN

OWN = ["uniform_soup", "first_model", "last_epochs", "copy_first", "start_over", "three_or_more"]
QUICK = {"n_resamples": 40, "points": 3, "barrier_images": 32, "last": [1, 2]}


class Last(NoConfig):
    last: int = 2


@pytest.fixture(scope="module")
def _operators():
    """Operators of which it is known what comes of them."""
    from vitarium.core import registry

    for kind in registry.KINDS:
        registry.plugins(kind)
    before = dict(registry._plugins["operator"])

    @operator("first_model", title="First model", split="val")
    def first_model(config: NoConfig, ingredients):
        """The first model, whatever the validation images say."""
        assert len(ingredients.examples())
        yield from ((name, ingredients[0][name]) for name in ingredients.shapes)

    @operator(
        "last_epochs",
        title="Last epochs",
        config=Last,
        models=(1, None),
        epochs=lambda c, kept: kept[-c.last :],
    )
    def last_epochs(config: Last, ingredients):
        """The last of the epochs."""
        yield from ((name, ingredients[-1][name]) for name in ingredients.shapes)

    @operator("copy_first", title="Copy first", aligns=True, ordered=True, models=(2, 2), origin=-1)
    def copy_first(config: NoConfig, ingredients):
        """A perfect alignment: the second model becomes the first."""
        yield from ((name, ingredients[0][name]) for name in ingredients.shapes)

    @operator("start_over", title="Start over", needs_base=True, models=(1, 1))
    def start_over(config: NoConfig, ingredients):
        """What the model started from."""
        for name, base, _ in ingredients.deltas():
            yield name, base

    @operator("three_or_more", title="Three or more", models=(3, None))
    def three_or_more(config: NoConfig, ingredients):
        """Of three models."""
        yield from ()

    yield
    registry._plugins["operator"] = before


@pytest.fixture(scope="module")
def zoo(_grown, tmp_path_factory):
    return vitarium.Zoo.open(shutil.copytree(_grown, tmp_path_factory.mktemp("soups") / "zoo"))


@pytest.fixture(scope="module")
def studied(zoo, _operators, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    return vitarium.study(
        zoo, "soups", out=folder / "page.html", figures=folder / "figures", methods=OWN, **QUICK
    )


def tables(studied, title):
    blocks = [b for s in studied.tables.sections for b in s.blocks]
    return [b for b in blocks if getattr(b, "title", "").startswith(title)]


def siblings(zoo):
    children = [id for id in zoo.ids() if zoo.spec(id).parent]
    families = {}
    for id in children:
        families.setdefault(zoo.spec(id).parent, []).append(id)
    return families


def percent(text):
    return float(re.search(r"[+-]?[\d.]+", text.replace("\u2212", "-"))[0])


def test_the_numbers_are_those_of_models_that_are_merged_and_measured(studied, zoo, grown_zoo):
    (table,) = tables(studied, "Every group of siblings")
    parent, members = next(iter(siblings(zoo).items()))
    soup = vitarium.merge(grown_zoo, "uniform_soup", models=members).id
    measured = vitarium.measure(grown_zoo, "accuracy", models=[*members, soup])
    known = measured[measured["part"] == ""].set_index("model")["value"]
    rows = {row[1]: row for row in table.rows if row[0] == parent[:8]}
    assert percent(rows["uniform soup"][5]) == pytest.approx(100 * known[soup], abs=0.06)
    assert percent(rows[MEAN][5]) == pytest.approx(100 * known[members].mean(), abs=0.06)
    val = vitarium.measure(grown_zoo, "accuracy", models=members, split="val", force=True)
    best = val[val["part"] == ""].set_index("model")["value"].idxmax()
    assert percent(rows[BEST][5]) == pytest.approx(100 * known[best], abs=0.06)
    assert percent(rows["uniform soup"][6]) == pytest.approx(
        100 * (known[soup] - known[best]), abs=0.06
    )


def test_the_ensemble_is_the_mean_of_logits(studied, zoo):
    (table,) = tables(studied, "Every group of siblings")
    parent, members = next(iter(siblings(zoo).items()))
    sources = ModelLoader(zoo, data=None, device="cpu", data_dir=None)
    examples = sources.examples(members[0], "test")
    (batch,) = examples.batches(len(examples))
    outputs = sum(zoo.load(id)(batch.images).detach().double() for id in members)
    right = (outputs.argmax(1) == examples.labels).float().mean().item()
    (row,) = [r for r in table.rows if r[0] == parent[:8] and r[1] == ENSEMBLE]
    assert percent(row[5]) == pytest.approx(100 * right, abs=0.06)


def test_an_operator_that_does_nothing_gains_nothing(studied):
    (table,) = tables(studied, "Averages of the last epochs")
    assert [row[1] for row in table.rows] == ["1"], "the state before training is no epoch of it"
    assert {row[5] for row in table.rows} == {"0 / 4 / 0"}
    assert {percent(row[3]) for row in table.rows} == {0}


def test_a_perfect_alignment_leaves_no_barrier(studied):
    (table,) = tables(studied, "Barriers before and after alignment")
    assert {row[1] for row in table.rows} == {"copy first"}
    assert all(row[4].startswith("0.000") for row in table.rows)
    (across,) = tables(studied, "Models of different parents")
    rows = {row[1]: row for row in across.rows}
    first = rows["uniform soup after copy first"]
    singles = tables(studied, "Soups of the best models")[0].rows
    assert percent(first[5]) in [percent(row[4]) for row in singles]
    assert first[5] != rows["uniform soup"][5]


def test_one_model_goes_back_to_what_it_started_from(studied, zoo):
    (table,) = tables(studied, "Every group of siblings")
    parent, members = next(iter(siblings(zoo).items()))
    (row,) = [r for r in table.rows if r[0] == parent[:8] and r[1] == "start over"]
    epochs = zoo.epochs(members[0])
    assert percent(row[5]) == pytest.approx(100 * epochs["test_accuracy"][0], abs=0.06)


def test_there_is_a_figure_of_each_kind(studied):
    names = {figure.name for figure in studied.tables.figures}
    assert names == {
        f"finetune-{kind}"
        for kind in (
            "methods",
            "ingredients",
            "epoch-averages",
            "barrier-curves",
            "barriers",
            "barriers-after-copy-first",
            "barriers-before-and-after",
        )
    }
    assert {path.stem for path in studied.figures} == names
    assert {path.suffix for path in studied.figures} == {".png", ".svg"}


def test_figures_show_something(studied):
    from PIL import Image

    for path in studied.figures:
        if path.suffix == ".png":
            assert np.asarray(Image.open(path).convert("L")).std() > 5


def test_sentences_say_when_one_may_average(studied):
    message = " ".join(studied.sentences)
    assert "The uniform soup of one parent's children against" in message
    assert "models of the same parent" in message
    assert "models of different parents" in message
    assert "copy first removes" in message or "copy first does not clearly lower" in message
    (table,) = tables(studied, "Published directions")
    assert len(table.rows) == 4
    assert all("here" in row[1] for row in table.rows)


def test_a_second_study_computes_nothing(studied, zoo, tmp_path, monkeypatch):
    def fails(*_):
        raise AssertionError("computed again")

    monkeypatch.setattr(MergePlan, "weights", fails)
    monkeypatch.setattr("vitarium.studies.soups.barriers.path_losses", fails)
    monkeypatch.setattr(ModelLoader, "_subject", fails)
    again = vitarium.study(zoo, "soups", out=tmp_path / "page.html", methods=OWN, **QUICK)
    assert again.page.read_bytes() == studied.page.read_bytes()


def test_nothing_is_added_to_the_zoo(studied, zoo):
    assert len(zoo.ids()) == 6
    assert zoo.query("SELECT count(*) AS n FROM records")["n"].item() == 0


def test_what_cannot_be_combined_is_said_with_its_reason(studied):
    (table,) = tables(studied, "What could not be combined")
    assert "three_or_more needs at least 3 models; 2 are given" in {row[2] for row in table.rows}


def test_a_zoo_without_children_is_refused(grown_zoo, tmp_path):
    out = tmp_path / "page.html"
    with pytest.raises(InvalidInput, match="no model has two finished children"):
        vitarium.study(
            grown_zoo, "soups", out=out, where="stage = 'pretrain'", methods=["uniform_soup"]
        )
    assert not out.exists()


def test_faults_are_told_before_anything_is_computed(grown_zoo, tmp_path):
    out = tmp_path / "page.html"
    with pytest.raises(UnknownName, match="did you mean 'uniform_soup'"):
        vitarium.study(grown_zoo, "soups", out=out, methods=["uniform_sop"])
    with pytest.raises(InvalidInput, match="cannot report on them"):
        vitarium.study(grown_zoo, "soups", out=out, split="val", methods=["uniform_soup"])
    with pytest.raises(InvalidInput, match="without a point halfway"):
        vitarium.study(grown_zoo, "soups", out=out, points=4, methods=["uniform_soup"])
    assert not (grown_zoo.path / "cache").exists()


def test_what_is_rearranged_takes_the_place_of_the_ingredients(grown_zoo):
    members = next(iter(siblings(grown_zoo).values()))
    sources = ModelLoader(grown_zoo, data=None, device="cpu", data_dir=None)
    from vitarium.operators._runner.choose import chosen

    soup = choose("operator", "uniform_soup")
    ingredients = chosen(grown_zoo, soup, members)
    plain = MergePlan(sources, soup, ingredients)
    twice = MergePlan(sources, soup, ingredients, weights=[plain.models[0]] * 2)
    first = grown_zoo.state_dict(members[0])
    assert twice.spec == plain.spec
    assert all((twice.weights()[name] == tensor).all() for name, tensor in first.items())
