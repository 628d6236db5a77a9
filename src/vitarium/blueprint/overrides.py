"""Factors by path: one rule for grids, variants and blueprints that extend another.

An override replaces what stands at its path: `optimizer: sgd` the whole section, `optimizer.lr`
one setting of it, `variants.0.seed` something in a list. Shorter paths are applied first, so the
order in which they are written does not matter.
"""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from itertools import product
from typing import Any


def apply(settings: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A copy with every override. KeyError with the path for a place that a list does not have."""
    result = deepcopy(dict(settings))
    for path in sorted(overrides, key=lambda path: (path.count("."), path)):
        try:
            _put(result, path.split("."), deepcopy(overrides[path]))
        except (IndexError, ValueError, TypeError, AttributeError):
            raise KeyError(path) from None
    return result


def combinations(grid: Mapping[str, list[Any]]) -> Iterator[dict[str, Any]]:
    """Every choice of one value per factor: the product of the lists."""
    paths = sorted(grid)
    for values in product(*(grid[path] for path in paths)):
        yield dict(zip(paths, values, strict=True))


def _put(node: Any, keys: list[str], value: Any) -> None:
    key: Any = int(keys[0]) if isinstance(node, list) else keys[0]
    if len(keys) == 1:
        node[key] = value
        return
    inner = node[key] if isinstance(node, list) else node.get(key, {})
    # "optimizer: sgd" and then "optimizer.lr": the name is the section's first setting
    node[key] = {"name": inner} if isinstance(inner, str) else inner
    _put(node[key], keys[1:], value)
