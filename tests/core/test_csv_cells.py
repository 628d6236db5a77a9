"""Texts in CSV tables that no spreadsheet takes for a formula."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitarium.core.csv_cells import guarded, unguarded


@pytest.mark.parametrize("text", ["=cmd()", "+1+2", "-rf", "@SUM(A1)", "\tx", "\r=1", "'=x"])
def test_what_could_be_a_formula_begins_with_a_quotation_mark(text):
    assert guarded(text) == f"'{text}"
    assert unguarded(guarded(text)) == text


@pytest.mark.parametrize("text", ["pretrain", "", "-1", "+0.5", "-1e-3", "'tis", "a=b", "0-1"])
def test_other_texts_stay_as_they_are(text):
    assert guarded(text) == text
    assert unguarded(text) == text


@given(st.text("'=+-@1e.\ta", max_size=6))
def test_every_text_comes_back(text):
    assert unguarded(guarded(text)) == text
