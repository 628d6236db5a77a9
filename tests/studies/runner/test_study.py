"""A study of a real zoo: measured, written, and looked at in a browser."""

import shutil

import numpy as np
import pytest

import vitarium
from vitarium.core.errors import InvalidInput, UnknownName
from vitarium.studies.diversity.measured import HESSIAN


@pytest.fixture(scope="module")
def zoo(_grown, tmp_path_factory):
    """A trained zoo, of which nothing is measured until it is studied."""
    return vitarium.Zoo.open(shutil.copytree(_grown, tmp_path_factory.mktemp("studied") / "zoo"))


@pytest.fixture(scope="module")
def studied(zoo, tmp_path_factory):
    out = tmp_path_factory.mktemp("page") / "page.html"
    return vitarium.study(zoo, "diversity", out=out, n_resamples=50)


def test_what_is_missing_is_measured_and_kept(studied, zoo):
    known = set(zoo.query("SELECT DISTINCT measure FROM records")["measure"])
    assert {"accuracy", "agreement", "cka", "weight_l2", "layer_statistics"} <= known
    assert HESSIAN not in known
    assert set(studied.tables.sentences) == {"pretrain", "finetune"}
    assert any("4 models reach a mean test accuracy" in line for line in studied.sentences)
    assert "vitarium measure" in studied.page.read_text()  # the Hessian's trace, and how to get it


def test_the_numbers_are_those_that_were_measured(studied, zoo):
    table = vitarium.measure(zoo, "agreement", pairs="same-stage")
    stage = zoo.models().set_index("id")["stage"]
    mean = table[table["model"].map(stage) == "finetune"]["value"].mean()
    (line,) = [line for line in studied.sentences if "give the same class" in line]
    assert line.startswith("finetune: ")
    assert f"{100 * mean:.1f}\xa0%" in line


def test_the_same_zoo_gives_the_same_page(studied, zoo, tmp_path):
    again = vitarium.study(zoo, "diversity", out=tmp_path / "again.html", n_resamples=50)
    assert again.page.read_bytes() == studied.page.read_bytes()


def test_without_a_file_for_the_page_there_are_tables_alone(studied, zoo):
    folder = {path.name for path in zoo.path.parent.iterdir()}
    tables_alone = vitarium.study(zoo, "diversity", n_resamples=50)
    assert tables_alone.page is None
    assert tables_alone.tables.keys() == studied.tables.keys()
    assert str(studied.page) not in repr(tables_alone)
    assert {path.name for path in zoo.path.parent.iterdir()} == folder


def test_what_is_not_to_be_measured_is_said_to_be_missing(grown_zoo, tmp_path):
    found = vitarium.study(
        grown_zoo, "diversity", out=tmp_path / "page.html", measure_missing=False, n_resamples=20
    )
    assert grown_zoo.query("SELECT count(*) AS n FROM records")["n"].item() == 0
    page = found.page.read_text()
    assert f"vitarium measure {grown_zoo.path} cka" in page
    assert any("4 models reach a mean test accuracy" in line for line in found.sentences)


def test_chosen_models_only_and_hessian_traces_on_request(grown_zoo, tmp_path):
    found = vitarium.study(
        grown_zoo,
        "diversity",
        out=tmp_path / "page.html",
        where="stage = 'finetune'",
        num_images=32,
        hessian_models=3,
        n_resamples=20,
        embeddings=["pca"],
    )
    assert set(found.tables.sentences) == {"finetune"}
    counted = grown_zoo.query(
        f"SELECT count(DISTINCT model) AS n FROM records WHERE measure = '{HESSIAN}'"
    )
    assert counted["n"].item() == 3
    names = [figure.name for figure in found.tables.figures]
    assert "finetune-accuracy-against-hessian-trace" in names


def test_faults_are_told_before_anything_is_measured(grown_zoo, tmp_path):
    out = tmp_path / "page.html"
    with pytest.raises(InvalidInput, match="no finished model fulfills the condition"):
        vitarium.study(grown_zoo, "diversity", out=out, where="lr > 7")
    with pytest.raises(UnknownName, match="did you mean 'diversity'"):
        vitarium.study(grown_zoo, "diversit", out=out)
    with pytest.raises(InvalidInput, match="n_resampless"):
        vitarium.study(grown_zoo, "diversity", out=out, n_resampless=1)
    assert not out.exists()


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_is_drawn_in_a_browser(studied, screenshot, dark):
    image = np.asarray(screenshot(studied.page, dark=dark)).astype(int)
    assert (image[200, 5] < 60).all() if dark else (image[200, 5] > 240).all()
    # the figures' blue and viridis' yellow are drawn by the scripts alone
    for color, least in (((59, 111, 182), 2000), ((253, 231, 37), 1000)):
        near = (np.abs(image - color) < 12).all(2)
        assert near.sum() > least


def test_models_are_chosen_by_their_ids(grown_zoo):
    chosen = grown_zoo.query("SELECT id FROM models WHERE stage = 'finetune' ORDER BY id")["id"][:3]
    study = vitarium.study(
        grown_zoo, "diversity", models=iter(chosen), n_resamples=20, embeddings=["pca"]
    )
    assert any("3 models reach a mean test accuracy" in line for line in study.sentences)
    assert set(grown_zoo.records()["model"]) == set(chosen)


def test_a_table_that_is_not_there_names_the_others(studied):
    with pytest.raises(UnknownName, match="unknown table 'Modles'"):
        studied["Modles"]


def test_a_result_lists_its_tables_which_spaces_find(studied):
    assert list(studied) == list(studied.tables)
    title = next(iter(studied))
    assert title in studied
    assert "Modles" not in studied
    with_break = next(name for name in studied if "\xa0" in name or " " in name)
    assert studied[with_break.replace("\xa0", " ")] is studied.tables[with_break]
    assert with_break.replace("\xa0", " ") in studied
