"""Distributions of a factor's values: each turns a number of [0, 1) into a value.

What it gives is written shortly, and that is the value: it trains the model, stands in tables, and
is part of the id.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, floor, isfinite, log, log10
from sys import float_info
from typing import Any, ClassVar, Self

from vitarium.core.printable import brief

_DIGITS = 4
"""An interval has 10^4 steps or more: a factor's value is read by people, too."""
_MAX_INTEGER = 2**53
"""Up to here floating-point numbers tell neighboring integers apart."""
_NUMBERS: dict[str, type] = {"uniform": float, "log_uniform": float, "integers": int}


class Distribution(ABC):
    """Of one factor's values; `kind` is its name in a blueprint."""

    kind: ClassVar[str]

    @abstractmethod
    def value(self, u: float) -> Any:
        """The value at u of [0, 1), as the inverse of the cumulative distribution function."""

    @abstractmethod
    def rounded(self, value: Any) -> Any:
        """A value of the distribution as it is written: in few digits, inside of the bounds."""


@dataclass(frozen=True)
class Interval(Distribution):
    """Numbers from `low` to `high`."""

    low: float
    high: float

    @classmethod
    def read(cls, bounds: Any) -> Self:
        """Raises ValueError, which says what to write, for what are no bounds."""
        form = f"{cls.kind}: [LOW, HIGH]"
        if not isinstance(bounds, list | tuple) or len(bounds) != 2:
            raise ValueError(f"{brief(bounds)} is not a list of two bounds; write {form}")
        for bound in bounds:
            if not _is_number(bound, _NUMBERS[cls.kind]):
                what = "an integer" if _NUMBERS[cls.kind] is int else "a finite number"
                raise ValueError(f"the bound {brief(bound)} is not {what}; write {form}")
        low, high = bounds
        if low >= high:
            raise ValueError(f"the lower bound {low!r} is not below the upper one, {high!r}")
        cls._check(low, high)
        return cls(low, high)

    @classmethod
    def _check(cls, low: float, high: float) -> None:
        """Raises ValueError for bounds that the distribution cannot have."""

    def _inside(self, value: float) -> float:
        return min(max(value, self.low), self.high)


class Uniform(Interval):
    """Every number as probable as any other."""

    kind = "uniform"

    @classmethod
    def _check(cls, low: float, high: float) -> None:
        if not isfinite(high - low):
            raise ValueError(f"from {low!r} to {high!r} is further than floating-point numbers go")

    def value(self, u: float) -> float:
        return self.rounded(self.low + u * (self.high - self.low))

    def rounded(self, value: float) -> float:
        decimals = _DIGITS - floor(log10(self.high - self.low))
        return float(self._inside(round(value, decimals)))


class LogUniform(Interval):
    """Every order of magnitude as probable as any other."""

    kind = "log_uniform"

    @classmethod
    def _check(cls, low: float, high: float) -> None:
        if low <= 0:
            raise ValueError(f"the lower bound {low!r} has no logarithm; write one above 0")
        if not isfinite(high / low):
            raise ValueError(f"from {low!r} to {high!r} is further than floating-point numbers go")

    def value(self, u: float) -> float:
        return self.rounded(exp(log(self.low) + u * (log(self.high) - log(self.low))))

    def rounded(self, value: float) -> float:
        narrowness = -min(0, floor(log10(self.high / self.low - 1)))  # a narrow one in more digits
        return float(self._inside(float(f"{value:.{_DIGITS + narrowness}g}")))


class Integers(Interval):
    """Every integer as probable as any other, both bounds included."""

    kind = "integers"

    @classmethod
    def _check(cls, low: float, high: float) -> None:
        if max(-low, high) > _MAX_INTEGER:
            raise ValueError(
                f"bounds of integers lie between -2**53 and 2**53, not {low} to {high}"
            )

    def value(self, u: float) -> int:
        return self.rounded(floor(self.low + u * (self.high - self.low + 1)))

    def rounded(self, value: float) -> int:
        return int(self._inside(value))


@dataclass(frozen=True)
class Choice(Distribution):
    """Each of these values as probable as any other."""

    kind: ClassVar[str] = "choice"
    values: Sequence[Any]

    @classmethod
    def read(cls, values: Any) -> Self:
        """Raises ValueError, which says what to write, for what is no list of values."""
        if not isinstance(values, list | tuple):
            raise ValueError(f"{brief(values)} is not a list of values; write choice: [...]")
        if not values:
            raise ValueError("an empty choice gives no model; give it a value")
        return cls(tuple(values))

    def value(self, u: float) -> Any:
        return self.values[int(u * len(self.values))]

    def rounded(self, value: Any) -> Any:
        return value


_KINDS: dict[str, type[Interval] | type[Choice]] = {
    distribution.kind: distribution for distribution in (Uniform, LogUniform, Integers, Choice)
}


def distribution(value: Any) -> Distribution:
    """Read one from a blueprint, e.g. {"uniform": [0, 0.1]}. Raises ValueError."""
    if isinstance(value, Distribution):
        return value
    kinds = ", ".join(_KINDS)
    if not isinstance(value, dict):
        raise ValueError(f"{brief(value)} is no distribution; write {{KIND: [...]}}, of {kinds}")
    names = {str(name).replace("-", "_"): name for name in value}
    if len(names) != 1 or (kind := next(iter(names))) not in _KINDS:
        raise ValueError(f"{brief(value)} is not one of the distributions {kinds}")
    return _KINDS[kind].read(value[names[kind]])


def _is_number(value: Any, number: type) -> bool:
    types = (int,) if number is int else (int, float)
    if not isinstance(value, types) or isinstance(value, bool):
        return False
    # compared as they are: a large integer cannot be turned into a float
    return number is int or -float_info.max <= value <= float_info.max
