"""Numbers that people write: `str.isdigit` alone also takes ², and more digits than `int` does."""

_MAX_DIGITS = 18


def is_number(text: str) -> bool:
    """Whether `int` reads it as a number of at most 18 digits from 0 to 9."""
    return text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS
