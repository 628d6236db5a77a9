"""Numbers as people write and read them."""

_MAX_DIGITS = 18


def is_number(text: str) -> bool:
    """Whether it is at most 18 digits from 0 to 9; `str.isdigit` alone also takes ²."""
    return text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS


def size(count: float) -> str:
    """1_100_000_000 bytes -> "1.1 GB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def duration(seconds: float) -> str:
    """90 -> "1m 30s", 5400 -> "1h 30m", 2e5 -> "2d 7h"."""
    rounded = round(seconds)
    for unit, big, small, per in ((86400, "d", "h", 3600), (3600, "h", "m", 60), (60, "m", "s", 1)):
        if rounded >= unit:
            return f"{rounded // unit}{big} {rounded % unit // per}{small}"
    return f"{seconds:.0f}s" if seconds >= 1 else "under 1s"


def counted(count: int, noun: str) -> str:
    """`1 model`, `2 models`, `10,000 models`."""
    return f"{count:,} {noun}{'s' * (count != 1)}"
