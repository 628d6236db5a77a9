"""Modules that compute more than they did, under the names that they had."""

from functools import cache
from typing import Any

from torch import nn


class Extension:
    """Base of what is mixed into a module's class by `extend`; it has the module's attributes."""

    def __reduce__(self) -> tuple[Any, ...]:
        # such a class has no name by which pickle would find it
        mixin, base = type(self).__bases__
        return _empty, (mixin, base), vars(self)


def extend(module: nn.Module, mixin: type[Extension]) -> None:
    """Mix a class into a module's, in place: its tensors stay, and keep their names.

    Methods of `mixin` come first, and reach those of the module's class by `super()`.
    """
    bases: tuple[Any, Any] = (mixin, type(module))
    module.__class__ = _extended(*bases)


@cache
def _extended(mixin: Any, base: Any) -> Any:
    return type(f"{mixin.__name__}{base.__name__}", (mixin, base), {"__module__": __name__})


def _empty(mixin: Any, base: Any) -> Any:
    extended = _extended(mixin, base)
    return extended.__new__(extended)
