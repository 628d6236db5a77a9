"""Which files a pattern of shards names: braces as in a shell, and globs."""

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from vitarium.core.errors import DataNotFound, InvalidInput

MAX_SHARDS = 100_000
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def shard_files(root: Path, pattern: str) -> list[Path]:
    """The files that `::`-joined patterns name, in order; those of a glob sorted by name.

    Patterns are relative to `root`, or absolute. Raises DataNotFound for a pattern that names no
    file, InvalidInput for one that cannot be read.
    """
    return [file for part in pattern.split("::") for file in _named(root, part)]


def expand_braces(pattern: str) -> list[str]:
    """`a-{00..02}.tar` -> a-00.tar, a-01.tar, a-02.tar; `{a,b}.tar` -> a.tar, b.tar.

    Raises InvalidInput for braces that are neither, and for more than MAX_SHARDS names.
    """
    names = [*islice(_expanded(pattern), MAX_SHARDS + 1)]
    if len(names) > MAX_SHARDS:
        raise InvalidInput(f"'{pattern}' stands for more than {MAX_SHARDS:,} shards")
    return names


def _expanded(pattern: str) -> Iterator[str]:
    braces = _BRACES.search(pattern)
    if braces is None:
        if "{" in pattern or "}" in pattern:
            raise InvalidInput(
                f"the braces of '{pattern}' do not match; e.g. train-{{000..010}}.tar"
            )
        yield pattern
        return
    before, after = pattern[: braces.start()], pattern[braces.end() :]
    for inside in _alternatives(braces[1], pattern):
        yield from _expanded(before + inside + after)


def _alternatives(inside: str, pattern: str) -> Iterator[str]:
    if bounds := _RANGE.fullmatch(inside):
        first, last = map(int, bounds.groups())
        if first > last:
            raise InvalidInput(
                f"{{{inside}}} in '{pattern}' counts down; write {{{last}..{first}}}"
            )
        yield from (f"{number:0{len(bounds[1])}}" for number in range(first, last + 1))
    elif "," in inside:
        yield from inside.split(",")
    else:
        how = "a range such as {000..010} or names such as {a,b}"
        raise InvalidInput(f"{{{inside}}} in '{pattern}' is neither {how}")


def _named(root: Path, pattern: str) -> Iterator[Path]:
    for name in expand_braces(pattern):
        path = root / name
        if any(character in name for character in "*?["):
            folder = Path(path.anchor)
            matches = sorted(folder.glob(str(path.relative_to(folder))))
            if not matches:
                raise DataNotFound(f"no file matches {path}")
            yield from matches
        elif path.is_file():
            yield path
        else:
            raise DataNotFound(f"shard {path} is not there; '{pattern}' names it")
