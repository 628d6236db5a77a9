"""Names in SQL as people write them: factors without quotes or in short, ids by their beginning."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

from vitarium.core.errors import InvalidInput

_TOKENS = re.compile(
    r"""(?P<text>'(?:[^']|'')*') | (?P<quoted>"(?:[^"]|"")*") | (?P<gap>\s+|--[^\n]*|/\*.*?\*/)
    | (?P<dollars>\$\$.*?\$\$) | (?P<name>[^\W\d]\w*(?:\.\w+|\."(?:[^"]|"")*")*)
    | (?P<sign><>|!=|==|\|\||.)""",
    re.VERBOSE | re.DOTALL,
)
_ID_COLUMNS = {"id", "model", "parent", "other"}
_EQUALITY = {"=", "==", "!=", "<>"}
_ID_START = re.compile("'([0-9a-f]{1,11})'")

Token = tuple[str, str]
"""What it is (a group of `_TOKENS`), and its text."""


def quote(name: str) -> str:
    """A name as SQL writes it: in double quotes."""
    return '"' + name.replace('"', '""') + '"'


def short_names(columns: Iterable[str], taken: Iterable[str] = ()) -> dict[str, str]:
    """Last parts of dotted names, where just one column ends so: "lr" -> "optimizer.lr".

    Settings of evaluation sets have none: they would take `split_seed` from the model's own data.
    """
    named = [name for name in columns if "." in name and not name.startswith("evaluate_on.")]
    dotted = {name: name.rpartition(".")[2] for name in named}
    count = Counter(short.lower() for short in dotted.values())
    used = {name.lower() for name in (*columns, *taken)}
    return {
        short: name
        for name, short in dotted.items()
        if short and count[short.lower()] == 1 and short.lower() not in used
    }


def with_quotes(sql: str, columns: Iterable[str]) -> str:
    """With quotes around names with dots, so that `optimizer.lr` is that column."""
    names = {name.lower() for name in columns if "." in name}

    def quoted(kind: str, text: str) -> str:
        if kind != "name" or '"' in text:
            return text
        if text.lower() in names:
            return quote(text)
        first, _, rest = text.partition(".")
        return f"{first}.{quote(rest)}" if rest.lower() in names else text

    return "".join(quoted(*token) for token in _tokens(sql))


def hyphenated(sql: str, columns: Iterable[str]) -> dict[str, str]:
    """Names with hyphens that are a column's but for these: "optimizer-lr" -> "optimizer.lr"."""
    by_letters = {re.sub(r"[-_.]", "-", name.lower()): name for name in columns}
    code = "".join(text if kind in ("name", "sign") else " " for kind, text in _tokens(sql))
    names = re.findall(r"[^\W\d][\w.]*(?:-[^\W\d][\w.]*)+", code)
    meant = {name: by_letters.get(re.sub(r"[-_.]", "-", name.lower())) for name in names}
    return {name: column for name, column in meant.items() if column}


def with_column(sql: str, name: str, column: str) -> str:
    """With a column in the place of another name for it, `lr` or `m.lr`."""

    def replaced(kind: str, text: str) -> str:
        table, _, last = text.rpartition(".")
        if kind not in ("name", "quoted") or last.strip('"').lower() != name.lower():
            return text
        return f"{table}.{quote(column)}" if table else quote(column)

    return "".join(replaced(*token) for token in _tokens(sql))


def with_full_ids(sql: str, find_ids: Callable[[], Sequence[str]]) -> str:
    """With full ids in the place of their beginnings, where a column of ids is compared with one.

    Ids have 12 digits, so that such a comparison would be true of none. One that begins no id
    stays. Raises InvalidInput for the beginning of several.
    """
    tokens = list(_tokens(sql))
    numbers = [n for n, (kind, _) in enumerate(tokens) if kind != "gap"]
    code = [tokens[n] for n in numbers]
    starts = [
        (number, match[1])
        for position, number in enumerate(numbers)
        if (match := _ID_START.fullmatch(code[position][1])) and _is_compared(code, position)
    ]
    if not starts or _renames_ids(code):
        return sql
    ids = find_ids()
    for number, start in starts:
        matches = [id for id in ids if id.startswith(start)]
        if len(matches) > 1:
            listed = ", ".join(matches[:3]) + ", …" * (len(matches) > 3)
            raise InvalidInput(f"'{start}' is the beginning of {listed}; give more digits")
        if matches:
            tokens[number] = ("text", f"'{matches[0]}'")
    return "".join(text for _, text in tokens)


def _tokens(sql: str) -> Iterable[Token]:
    return ((match.lastgroup or "", match[0]) for match in _TOKENS.finditer(sql))


def _is_compared(code: Sequence[Token], position: int) -> bool:
    """Whether the text at this position stands beside a column of ids: `=`, `!=` or `IN (...)`."""
    texts = [text.lower() for _, text in code]
    before, after = texts[:position], texts[position + 1 :]
    if after[:1] == ["||"] or before[-1:] == ["||"]:
        return False
    if before[-1:] and before[-1] in _EQUALITY:
        return _is_id_column(before[:-1])
    if after[:1] and after[0] in _EQUALITY:
        return after[1:] != [] and _is_id(after[1]) and after[2:3] != ["("]
    while before and (before[-1] == "," or before[-1].startswith("'")):
        before.pop()
    if before[-2:] != ["in", "("]:
        return False
    return _is_id_column(before[: -3 if before[-3:-2] == ["not"] else -2])


def _is_id_column(texts: Sequence[str]) -> bool:
    return bool(texts) and _is_id(texts[-1])


def _is_id(text: str) -> bool:
    return text.rpartition(".")[2].strip('"') in _ID_COLUMNS


def _renames_ids(code: Sequence[Token]) -> bool:
    """Whether something else may be called like a column of ids: `left(id, 8) AS model`."""
    texts = [text.lower() for _, text in code]
    return any(a == "as" and _is_id(b) for a, b in pairwise(texts))
