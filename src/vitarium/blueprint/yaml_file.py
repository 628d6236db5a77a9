"""Reads YAML 1.2 (3e-3 is a number, a key given twice is an error) and knows each key's line."""

import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.reader import ReaderError

from vitarium.core.config import KeyPath
from vitarium.core.errors import InvalidInput

_MAX_DEPTH = 100
_MAX_VALUES = 100_000


class YamlFile:
    """A parsed file: `values` as plain Python data, and `line(path)` for error messages."""

    def __init__(self, text: str, name: str) -> None:
        self.name, self.text = name, text
        depth = 0
        for bracket in re.findall(r"[][{}]", text):  # for which a parser takes quadratic time
            depth = max(depth + (1 if bracket in "[{" else -1), 0)
            if depth > _MAX_DEPTH:
                raise InvalidInput(f"{name}: brackets are nested more than {_MAX_DEPTH} deep")
        try:
            self._tree = YAML(typ="rt", pure=True).load(text)
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            where = f"{name}:{mark.line + 1}" if mark else name
            raise InvalidInput(f"{where}: not valid YAML: {error.problem}") from None
        except ReaderError as error:
            line = text[: error.position].count("\n") + 1
            raise InvalidInput(
                f"{name}:{line}: not valid YAML: U+{error.character:04X} may not stand in it as it "
                'is; in double quotes, write it as "\\xNN" or "\\uNNNN"'
            ) from None
        except (ValueError, KeyError, OverflowError, RecursionError) as error:
            # of a date that there is not, a number of 5,000 digits, `!!bool maybe`
            raise InvalidInput(f"{name}: not valid YAML: {error}") from None
        try:
            if _size(self._tree, {}) > _MAX_VALUES:
                what = f"its aliases stand for more than {_MAX_VALUES:,} values"
                raise InvalidInput(f"{name}: {what}")
            self.values = _plain(self._tree)
        except RecursionError:
            raise InvalidInput(f"{name}: it is nested too deep") from None

    @classmethod
    def read(cls, path: Path) -> "YamlFile":
        """Raises InvalidInput where the file is missing, unreadable or not YAML."""
        try:
            return cls(path.read_text(encoding="utf-8"), str(path))
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(f"cannot read {path}: {error}") from None

    def line(self, path: KeyPath) -> int | None:
        """The line (from 1) of the deepest key of `path` that stands in the file."""
        line: int | None = None
        node: Any = self._tree
        for key in path:
            key = spelled(node, key)
            try:
                position = (node.lc.item if hasattr(node, "append") else node.lc.key)(key)
                line, node = position[0] + 1, node[key]
            except (AttributeError, KeyError, IndexError, TypeError):
                break
        return line


def spelled(node: Any, key: Any) -> Any:
    """The key as the file has it: with hyphens, or as the position of what has that `name`."""
    if isinstance(node, list) and isinstance(key, str):
        names = [item.get("name") if isinstance(item, dict) else None for item in node]
        return names.index(key) if key in names else key
    if isinstance(node, dict) and key not in node:
        return next((k for k in node if str(k).replace("-", "_") == key), key)
    return key


def _size(node: Any, sizes: dict[int, int]) -> int:
    """How many values a node stands for, with those that aliases repeat; `sizes` by identity."""
    if id(node) not in sizes:
        nodes = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        sizes[id(node)] = 1 + sum(_size(child, sizes) for child in nodes)
    return sizes[id(node)]


def _plain(node: Any) -> Any:
    if isinstance(node, dict):
        return {str(key): _plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(value) for value in node]
    for kind in (bool, int, float, str):  # ruamel's scalars remember how they were written
        if isinstance(node, kind):
            return kind(node)
    return node
