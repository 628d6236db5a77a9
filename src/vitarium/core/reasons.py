"""What several things have the same reason for, in one line for all of them."""

import re
from collections.abc import Iterable

_ID = re.compile(r"\b[0-9a-f]{12}(@\d+)?\b")


def by_reason(reasons: Iterable[tuple[str, str]], max_names: int = 8) -> list[str]:
    """Lines `NAME, NAME and 3 more: REASON`, of pairs of a name and its reason, as they come.

    Reasons that differ in models' ids alone are one, of which the first stands for all, with how
    many there are.
    """
    names: dict[str, dict[str, None]] = {}
    texts: dict[str, dict[str, None]] = {}
    for name, reason in reasons:
        key = _ID.sub("…", reason)
        names.setdefault(key, {})[name] = None
        texts.setdefault(key, {})[reason] = None
    return [f"{_listed([*names[key]], max_names)}{_example(texts[key])}" for key in names]


def _listed(names: list[str], max_names: int) -> str:
    more = len(names) - max_names
    return ", ".join(names[:max_names]) + (f" and {more:,} more" if more > 0 else "")


def _example(texts: dict[str, None]) -> str:
    times = f" ({len(texts):,} times, e.g.)" if len(texts) > 1 else ""
    return f"{times}: {next(iter(texts))}"
