"""Texts of anyone, as people may be shown them."""

import json
import unicodedata
import xml.etree.ElementTree as ET
from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitarium.core.printable import (
    distinct,
    encodable,
    escaped_json,
    is_hidden,
    printable,
    shortened,
)

anything = st.text(st.characters())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("stage 1/2 füße 事前学習 👩‍👧", "stage 1/2 füße 事前学習 👩‍👧"),
        ("می‌خواهم", "می‌خواهم"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("right\u202eleft\u200b", r"right\u202eleft\u200b"),
        ("two\nlines\r\n\tand\u2028more\u3000wide", "two lines   and more wide"),
        ("nul\0", r"nul\x00"),
        ("no UTF-8: \udcff, half: \ud83d", r"no UTF-8: \xff, half: \ud83d"),
    ],
)
def test_what_is_not_seen_is_written_out_and_all_else_stays(text, expected):
    assert printable(text) == expected


@given(anything)
def test_a_shown_text_is_seen_whole_and_is_shown_alike_again(text):
    escaped = printable(text)
    assert not any(map(is_hidden, escaped))
    assert not set(escaped) & set("\n\r\t\v\f")
    assert printable(escaped) == escaped
    escaped.encode()
    ET.fromstring(f"<a>{escape(escaped)}</a>")


@given(st.lists(anything, unique=True))
def test_different_names_are_shown_differently(names):
    labels = distinct(names)
    assert set(labels) == set(names)
    assert len(set(labels.values())) == len(names)


def test_a_name_that_looks_like_another_gets_a_number():
    assert distinct(["a\nb", "a b", "", "c" * 50], max_length=10) == {
        "a b": "a b",
        "a\nb": "a b (2)",
        "": "unnamed",
        "c" * 50: "ccccc…cccc",
    }


@given(st.recursive(anything | st.integers() | st.none(), st.lists, max_leaves=5))
def test_escaped_json_has_the_same_value(value):
    text = json.dumps(value, ensure_ascii=False, indent=1)
    escaped = escaped_json(text)
    assert json.loads(escaped) == value
    assert not any(is_hidden(letter) for letter in escaped if letter != "\n")
    escaped.encode()


@given(anything)
def test_a_whole_text_can_be_written_and_keeps_what_utf_8_can_say(text):
    assert encodable(encodable(text)) == encodable(text)
    encodable(text).encode()
    if not any(unicodedata.category(letter) == "Cs" for letter in text):
        assert encodable([{text: (text, 1)}]) == [{text: (text, 1)}]


def test_halves_stay_apart_from_each_other():
    assert encodable({"a\udcff": ["\ud83d"]}) == {r"a\xff": [r"\ud83d"]}


def test_a_shortened_text_has_both_ends():
    assert shortened("0123456789", 10) == "0123456789"
    assert shortened("0123456789a", 5) == "01…9a"
    assert len(shortened("x" * 100, 5)) == 5
