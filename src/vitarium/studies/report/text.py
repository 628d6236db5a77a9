"""Numbers and names as a reader of the page sees them."""

import math
from collections.abc import Sequence

from vitarium.studies.statistics.bootstrap import Estimate

TITLES = {
    "accuracy": "accuracy",
    "generalization_gap": "generalisation gap",
    "loss": "loss",
    "calibration_error": "calibration error",
    "weight_norm": "weight norm",
    "distance_from_parent": "distance from parent",
    "distance_from_start": "distance from start",
    "hessian_trace": "Hessian trace",
    "layer_statistics": "weight statistics",
    "agreement": "predictions (agreement)",
    "error_consistency": "error consistency",
    "js_divergence": "probabilities (Jensen-Shannon)",
    "ensemble_gain": "ensemble gain",
    "cka": "representations (CKA)",
    "weight_l2": "weights (L2)",
    "weight_cosine": "weights (cosine)",
}
PERCENT = {"accuracy", "generalization_gap", "calibration_error", "agreement", "ensemble_gain"}
"""Measures that are fractions people read in percent."""

SIGN = "\u00a0%"
"""Behind a number, and never on the next line."""
DASH = "\u2013"
"""Where there is no value."""


def title(measure: str) -> str:
    return TITLES.get(measure, measure.replace("_", " "))


def number(value: float | None, measure: str = "") -> str:
    """Three figures, or percent for what is a fraction."""
    if value is None or not math.isfinite(value):
        return DASH
    if measure in PERCENT:
        return f"{100 * value:.1f}{SIGN}".replace("-", "\u2212")
    return _figures(value).replace("-", "\u2212")


def _figures(value: float) -> str:
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
    return f"{value:.2e}"


def share(value: float) -> str:
    return f"{round(100 * value)}{SIGN}".replace("-", "\u2212")


def with_interval(
    estimate: Estimate,
    measure: str = "",
    *,
    level: float = 0.95,
    points: bool = False,
    inside: bool = False,
) -> str:
    """`94.1 % (95 % CI 93.0 to 95.2)`.

    With `points`, of a difference, `−1.7 points (...)`; `inside` of brackets, a comma for them.
    """
    said = f"**{number(estimate.value, measure)}**"
    if points:
        said = said.replace(SIGN, "\u00a0points")
    if estimate.low is None or estimate.high is None:
        return said if inside else f"{said} (too few models for an interval)"
    low, high = (number(v, measure).removesuffix(SIGN) for v in (estimate.low, estimate.high))
    bounds = f"{100 * level:.0f}{SIGN} CI {low} to {high}"
    return f"{said}, {bounds}" if inside else f"{said} ({bounds})"


def share_with_interval(estimate: Estimate, *, level: float = 0.95) -> str:
    """`62 % (95 % CI 48 to 75)`"""
    said = f"**{share(estimate.value)}**"
    if estimate.low is None or estimate.high is None:
        return f"{said} (too few models for an interval)"
    return (
        f"{said} ({100 * level:.0f}{SIGN} CI {100 * estimate.low:.0f} to {100 * estimate.high:.0f})"
    )


def interval(estimate: Estimate, measure: str = "") -> str:
    """`[0.93, 0.95]`, or a dash."""
    if estimate.low is None or estimate.high is None:
        return DASH
    low, high = (number(v, measure).removesuffix(SIGN) for v in (estimate.low, estimate.high))
    return f"[{low}, {high}]"


def p_value(p: float) -> str:
    if not math.isfinite(p):
        return "p unknown"
    return "p < 0.001" if p < 1e-3 else f"p = {p:.3f}"


def p_alone(p: float | None) -> str:
    """For a column of them."""
    if p is None or not math.isfinite(p):
        return DASH
    return "< 0.001" if p < 1e-3 else f"{p:.3f}"


def listed(words: Sequence[str]) -> str:
    """a, b and c"""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
