"""How much more data gives as much as a level of another factor does.

After Steiner et al. 2022 (How to train your ViT?, arXiv 2106.10270), who find what augmentation and
regularization are worth in terms of data. The target is fitted over the logarithm of the amount of
data at a reference level of the factor; that curve is inverted at what another level reaches.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from vitarium.core.errors import InvalidInput, UnknownName
from vitarium.studies.factors.analysis import Analysis
from vitarium.studies.factors.coding import Coded
from vitarium.studies.factors.design import design_of, fits
from vitarium.studies.factors.observed import DATA_AMOUNT, Observed
from vitarium.studies.factors.surface import Surface
from vitarium.studies.statistics.bootstrap import Bootstrap, Numbers

_GRID = 241
_PLAIN = ("none", "false", "0", "0.0")
"""Levels that are a factor's reference where it has one of them."""


class Equivalent(NamedTuple):
    """What a level of a factor is worth in data, at one amount of data.

    factor: amount of data at the reference level that reaches the same, over the amount; `inf` and
        0: more, and less, than any in the range reaches.
    low, high: of its interval, likewise.
    """

    name: str
    level: str
    reference: str
    amount: float
    factor: float
    low: float
    high: float
    limits: tuple[float, float]  # the factors that the range of amounts allows at this amount


class Equivalents(NamedTuple):
    """Of every level of every factor, and why a factor has none."""

    data: str
    rows: list[Equivalent]
    without: dict[str, str]


def data_factor(observed: Observed, name: str | None) -> Coded | None:
    """The factor that is the amount of data; None where there is none.

    Raises UnknownName, and InvalidInput for one that is no positive number.
    """
    by_name = {factor.name: factor for factor in observed.factors}
    if name is None:
        amounts = [
            factor
            for factor in observed.factors
            if observed.names[factor.name].rpartition(".")[2] == DATA_AMOUNT
            and not observed.names[factor.name].startswith("parent.")
        ]
        return amounts[0] if amounts and _is_amount(amounts[0]) else None
    dotted = {observed.names[key]: factor for key, factor in by_name.items()}
    if (chosen := by_name.get(name) or dotted.get(name)) is None:
        raise UnknownName("factor", name, by_name)
    if not _is_amount(chosen):
        raise InvalidInput(f"{name} is no amount of data: not all of its values are positive")
    return chosen


def _is_amount(factor: Coded) -> bool:
    numbers = factor.numbers[np.isfinite(factor.numbers)]
    return bool(factor.is_numeric and None not in factor.levels and (numbers > 0).all())


def equivalents(
    analysis: Analysis, data: Coded, references: Mapping[str, str], bootstrap: Bootstrap
) -> Equivalents:
    """Of every factor with levels, with the interaction of the two in the fit.

    Args:
        references: levels of factors, by name, that others are compared with; of a factor without
            one, `none`, `False` or 0, or else the level that most models have.

    Raises UnknownName for a factor or a level that there is not.
    """
    observed, factors = analysis.observed, list(analysis.factors)
    by_name = {factor.name: factor for factor in factors}
    short = {dotted: name for name, dotted in observed.names.items()}
    references = {short.get(name, name): level for name, level in references.items()}
    for name, level in references.items():
        if name not in by_name:
            raise UnknownName("factor", name, by_name)
        if level not in by_name[name].labels:
            raise UnknownName(f"level of {name}", level, by_name[name].labels)
    rows, without = list[Equivalent](), dict[str, str]()
    first = next(i for i, factor in enumerate(factors) if factor.name == data.name)
    factors[first] = replace(factors[first], scale="log")
    for second, factor in enumerate(factors):
        if second == first or factor.is_continuous:
            continue
        pair = (min(first, second), max(first, second))
        design = design_of(factors, observed.parents, [pair])
        if not fits(design):
            design = design_of(factors, observed.parents, [pair], is_low=True)
        if factor.nested_in or data.name in factor.nested_in or not fits(design):
            why = "it cannot be separated" if factor.nested_in else "there are too few models"
            without[factor.name] = why
            continue
        surface = Surface(design, observed.target, bootstrap)
        joint = Analysis(observed, surface, "all", {})
        fault, of_factor = _of_factor(joint, first, second, references.get(factor.name))
        rows += of_factor
        if fault:
            without[factor.name] = fault
    return Equivalents(data.name, rows, without)


def _of_factor(
    analysis: Analysis, data: int, other: int, reference: str | None
) -> tuple[str, list[Equivalent]]:
    """Why there is none, or the equivalents."""
    amounts, factor = analysis.factors[data], analysis.factors[other]
    given = np.unique(amounts.numbers)
    between = np.exp(np.linspace(np.log(given[0]), np.log(given[-1]), _GRID))
    grid = np.unique(np.concatenate([between[1:-1], given]))
    index = _reference(factor, reference)
    base, reference_label = factor.levels[index], factor.labels[index]
    curve_rows = analysis.joint(data, other, [(x, base) for x in grid])
    draws = analysis.surface.drawn_coefficients()
    coefficients = analysis.surface.coefficients
    rise = curve_rows[-1] - curve_rows[0]
    alpha = 1 - analysis.surface.bootstrap.confidence_level
    ends = np.quantile(draws @ rise, [alpha / 2, 1 - alpha / 2])
    if ends[0] <= 0 <= ends[1]:
        return f"the target does not clearly change with data where it is {reference_label}", []
    sign = 1 if ends[0] > 0 else -1
    curves = np.maximum.accumulate(sign * np.vstack([coefficients, draws]) @ curve_rows.T, axis=1)
    rows = []
    levels = list(zip(factor.levels, factor.labels, strict=True))
    for amount in _shown(amounts):
        for level, label in levels:
            if label == reference_label:
                continue
            row = analysis.joint(data, other, [(amount, level)])[0]
            reached = sign * np.concatenate([[coefficients @ row], draws @ row])
            ratios = _inverted(curves, reached, grid) / amount
            low, high = _quantiles(ratios[1:], alpha)
            limits = float(grid[0] / amount), float(grid[-1] / amount)
            numbers = float(amount), float(ratios[0]), low, high
            rows.append(Equivalent(factor.name, label, reference_label, *numbers, limits))
    return "", rows


def _reference(factor: Coded, label: str | None) -> int:
    if label is not None:
        return factor.labels.index(label)
    for plain in _PLAIN:
        if plain in (lower := [name.lower() for name in factor.labels]):
            return lower.index(plain)
    return int(np.bincount(factor.codes).argmax())


def _shown(amounts: Coded) -> Sequence[Any]:
    """Every level; of a continuous amount the smallest, the median and the largest."""
    if not amounts.is_continuous:
        return amounts.levels
    return [float(v) for v in np.quantile(amounts.numbers, [0, 0.5, 1], method="nearest")]


def _inverted(curves: Numbers, reached: Numbers, grid: Numbers) -> Numbers:
    """Where rising curves [n, points] reach [n] values; 0: before all points, inf: after them."""
    logs = np.log(grid)
    slack = 1e-9 * float(np.ptp(curves[0]))  # of rounding
    after = (curves < reached[:, None] - slack).sum(1)
    inside = np.clip(after, 1, len(grid) - 1)
    rows = np.arange(len(curves))
    low, high = curves[rows, inside - 1], curves[rows, inside]
    share = np.divide(reached - low, high - low, out=np.ones_like(low), where=high > low)
    amounts = np.exp(logs[inside - 1] + np.clip(share, 0, 1) * (logs[inside] - logs[inside - 1]))
    below = reached < curves[:, 0] - slack
    return np.where(after == len(grid), math.inf, np.where(below, 0.0, amounts))


def _quantiles(values: Numbers, alpha: float) -> tuple[float, float]:
    """Bounds among the values themselves, some of which may be infinite."""
    low = np.quantile(values, alpha / 2, method="lower")
    high = np.quantile(values, 1 - alpha / 2, method="higher")
    return float(low), float(high)
