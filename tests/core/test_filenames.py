"""Names of anyone as names of files."""

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitarium.core.filenames import MAX_BYTES, collision_key, file_name, file_names, user_path

RESERVED = {"con", "prn", "aux", "nul", *(f"{d}{n}" for d in ("com", "lpt") for n in range(10))}
anything = st.one_of(
    st.text(st.characters()),  # halves of surrogate pairs among them
    st.text("./\\ -~\0\n:a", max_size=6),
    st.sampled_from(["..", "CON", "nul.txt", "com1 .x", "x" * 10_000, "事" * 200, "a" * 300 + "/"]),
)


@pytest.mark.parametrize(
    "name",
    [
        "pretrain",
        "fine-tune 2",
        "füße",
        "事前学習",
        "lr=0.01",
        "sl_ft_SD_42_LR_0.001",
        "a (2)",
        "v1.0",
    ],
)
def test_ordinary_names_stay_as_they_are(name):
    assert file_name(name) == name
    assert file_names([name]) == {name: name}


@given(anything)
def test_any_text_becomes_the_name_of_one_file_here(text):
    name = file_name(text)
    assert name
    assert len(name.encode()) <= MAX_BYTES  # so there are no halves of surrogate pairs in it
    assert not set(name) & set('/\\\0:*?"<>|')
    assert all(unicodedata.category(letter)[0] != "C" for letter in name)
    assert name[0] not in ".- "
    assert name[-1] not in ". "
    assert name.partition(".")[0].rstrip().lower() not in RESERVED


@given(st.lists(anything, min_size=2, max_size=5, unique=True))
def test_different_texts_have_different_names_whatever_the_file_system_makes_of_letters(texts):
    assert len({file_name(text) for text in texts}) == len(texts)
    assert len({collision_key(name) for name in file_names(texts).values()}) == len(texts)


def test_what_a_changed_text_is_called_no_other_text_is_called():
    taken = file_name("stage 1/2")
    assert taken.startswith("stage 1_2~")
    assert file_name(taken) != taken


@pytest.mark.parametrize("pair", [("Base", "base"), ("é", "e\u0301"), ("straße", "STRASSE")])
def test_names_that_a_file_system_takes_for_one_are_told_apart_in_a_folder(pair):
    first, second = file_names(pair).values()
    assert collision_key(first) != collision_key(second)
    assert file_names(reversed(pair)) == file_names(pair)


def test_both_ends_of_a_long_name_are_kept():
    name = file_name("begin" + "x" * 10_000 + "-accuracy-over-epochs")
    assert name.startswith("begin")
    assert "-accuracy-over-epochs~" in name


def test_home_folders_are_those_of_users_that_there_are(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    assert user_path("~/zoo") == Path("/home/someone/zoo")
    assert user_path("~no-such-user/zoo") == Path("~no-such-user/zoo")
