"""Texts of a study's page: numbers, intervals, counts and lists are filled in."""

import tomllib
from pathlib import Path

import pytest

import vitarium.studies
from vitarium.studies.report.texts import Texts
from vitarium.studies.statistics.bootstrap import Estimate

FOLDERS = sorted(path.parent for path in Path(vitarium.studies.__path__[0]).glob("*/texts.toml"))


@pytest.fixture
def texts(tmp_path):
    """Texts of which one is as given, filled in with values."""

    def filled(text: str, **values):
        texts = Texts("none", "sentences")
        texts.path = tmp_path / "texts.toml"
        texts.path.write_text(f'[sentences]\nkey = """{text}"""\n', encoding="utf-8")
        return texts("key", **values).replace("\xa0", " ")

    return filled


def test_numbers_have_their_units_and_line_breaks_are_spaces(texts):
    assert texts("{a:fraction}\nof {b:.2f}", a=0.5, b=1.234) == "50.0 % of 1.23"


def test_estimates_have_their_intervals_in_brackets_or_after_a_comma(texts):
    share = Estimate(0.5, 0.4, 0.6)
    assert texts("{a:fraction}", a=share) == "**50.0 %** (95 % CI 40.0 to 60.0)"
    assert texts("{a:fraction,}", a=share) == "**50.0 %**, 95 % CI 40.0 to 60.0"


@pytest.mark.parametrize(("count", "text"), [(0, "0 pairs"), (1, "1 pair"), (2, "2 pairs")])
def test_the_word_fits_the_count(texts, count, text):
    assert texts("{n} {n:pair|pairs}", n=count) == text


def test_lists_are_enumerated_and_values_are_no_templates(texts):
    assert texts("{names}", names=["{a}", "b", "c"]) == "{a}, b and c"


def test_a_value_that_is_missing_is_an_error(texts):
    with pytest.raises(KeyError, match="b"):
        texts("{a} {b}", a=1)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_text_is_used(folder):
    code = "".join(file.read_text() for file in folder.glob("*.py")).replace("'", '"')
    for table, content in tomllib.loads((folder / "texts.toml").read_text("utf-8")).items():
        unused = [key for key in content if f'"{key}"' not in code]
        assert f'"{folder.name}", "{table}"' in code
        assert not unused or table in ("scores", "kinds")  # all of which are listed


def test_all_studies_have_texts():
    assert [folder.name for folder in FOLDERS] == [
        "diversity",
        "factors",
        "lineage",
        "soups",
        "twins",
    ]
