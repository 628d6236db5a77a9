import pytest

from vitarium.core.numerals import is_number


@pytest.mark.parametrize("text", ["0", "17", "0" * 18])
def test_numbers_are_digits(text):
    assert is_number(text)
    assert int(text) >= 0


@pytest.mark.parametrize("text", ["", "-1", "1.5", "²", "٣", " 1", "9" * 19, "9" * 5000])
def test_what_int_refuses_or_few_would_write_is_none(text):
    assert not is_number(text)
