"""Numbers and names as a reader of the page sees them."""

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import Any, Literal, NamedTuple

from vitarium.core.registry import plugins
from vitarium.studies.statistics.bootstrap import FRACTION, UNLIMITED, Estimate, Limits

SIGN = "\u00a0%"  # behind a number, and never on the next line
DASH = "\u2013"  # where there is no value

Unit = Literal["", "fraction", "gain", "share", "sure", "p", "id"]
"""How a column is shown: of three figures; `fraction` as 94.1 %; `gain`, a difference of fractions,
as +0.3 %; `share` as 62 %; `sure`, where 99.96 % must not look certain, as 99.9 %; `p` of a test;
`id` of a model by its first eight digits."""

Columns = dict[str, Unit]
"""Of a table, in order, each with its unit."""

FORMATS: dict[Unit, Callable[[float], str]] = {
    "fraction": lambda value: f"{100 * value:.1f}{SIGN}",
    "gain": lambda value: f"{'+' if value > 0 else ''}{100 * value:.1f}{SIGN}",
    "share": lambda value: f"{round(100 * value)}{SIGN}",
    "sure": lambda value: f"{100.0 if value == 1 else min(100 * value, 99.9):.1f}{SIGN}",
    "p": lambda value: "< 0.001" if value < 1e-3 else f"{value:.3f}",
}


class Spread(NamedTuple):
    """Mean, standard deviation and range of a sample, shown as `0.9 ± 0.1 [0.7, 1.0]`."""

    mean: float
    deviation: float
    low: float
    high: float
    unit: Unit = ""


class Quantity(NamedTuple):
    """A number or an estimate in a unit of its own, in a column of several units."""

    number: float | Estimate
    unit: Unit


class Interval(NamedTuple):
    """An estimate of which only the interval is shown."""

    estimate: Estimate


def title(measure: str) -> str:
    """What tables and figures call a measure, from its registration."""
    plugin = plugins("measure").get(measure)
    return str(plugin.facts["title"]) if plugin else measure.replace("_", " ")


def unit_of(measure: str) -> Unit:
    """Fractions are read in percent; of all else three figures."""
    plugin = plugins("measure").get(measure)
    return "fraction" if plugin and plugin.facts["unit"] == "fraction" else ""


def limits_of(measure: str) -> Limits:
    """Between which its values, and means of them, can lie."""
    return FRACTION if unit_of(measure) == "fraction" else UNLIMITED


def cell(value: Any, unit: Unit = "") -> str:
    """A cell of a table as text."""
    match value:
        case str():
            return value[:8] if unit == "id" else value
        case list():
            return ", ".join(cell(entry, unit) for entry in value)
        case Spread(mean, deviation, low, high, unit):
            text = number(mean, unit)
            if not math.isfinite(deviation):
                return text
            around, *ends = (number(v, unit).removesuffix(SIGN) for v in (deviation, low, high))
            percent = SIGN * text.endswith(SIGN)
            return f"{text.removesuffix(SIGN)} ± {around} [{', '.join(ends)}]{percent}"
        case Quantity(quantity, unit):
            return cell(quantity, unit)
        case Interval(estimate):
            if estimate.low is None or estimate.high is None:
                return DASH
            return f"[{_bound(estimate.low, unit)}, {_bound(estimate.high, unit)}]"
        case Estimate():
            return f"{number(value.value, unit)} {cell(Interval(value), unit)}"
        case Integral():
            return str(value)
    return number(value, unit)


def number(value: float | None, unit: Unit = "") -> str:
    """A number in a unit; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return DASH
    if unit in FORMATS:
        text = FORMATS[unit](value)
    elif value == 0 or 1e-3 <= abs(value) < 1e4:
        text = f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
    else:
        text = f"{value:.2e}"
    return text.replace("-", "\u2212")


def _bound(value: float, unit: Unit) -> str:
    return number(value, "fraction" if unit == "gain" else unit).removesuffix(SIGN)


def with_interval(estimate: Estimate, unit: Unit = "", *, inside: bool = False) -> str:
    """`**94.1 %** (95 % CI 93.0 to 95.2)`; `inside` brackets with a comma; a gain in points."""
    value = number(estimate.value, unit)
    text = f"**{value.replace(SIGN, chr(0xA0) + 'points') if unit == 'gain' else value}**"
    if estimate.low is None or estimate.high is None:
        return text if inside else f"{text} (too few models for an interval)"
    bounds = f"{_bound(estimate.low, unit)} to {_bound(estimate.high, unit)}"
    bounds = f"{100 * estimate.level:.0f}{SIGN} CI {bounds}"
    return f"{text}, {bounds}" if inside else f"{text} ({bounds})"


def headed(lines: Mapping[str, Sequence[str]]) -> list[str]:
    """Lines by stage as one list; the first of each begins with the stage's name."""
    return [
        f"**{stage}.** {line}" if number == 0 else line
        for stage, of_stage in lines.items()
        for number, line in enumerate(of_stage)
    ]


def listed(words: Sequence[str]) -> str:
    """a, b and c"""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
