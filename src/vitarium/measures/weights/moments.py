"""Mean, standard deviation and kurtosis of the weights, from shared sums."""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from vitarium.measures.base import Config, NotApplicable, Values, Weights, measure


class WeightMoments(Config):
    """Of all weights together, or of those whose name contains a text."""

    names: str = ""
    """Measure only tensors whose name contains this text, e.g. `attn.proj`; empty: all."""


@measure("weight_mean", unit="weight")
def weight_mean(config: WeightMoments, weights: Weights) -> Values:
    """Mean of the weights, of each tensor and of all."""
    return {part: moments.mean for part, moments in _moments(config, weights).items()}


@measure("weight_std", unit="weight", title="weight standard deviation")
def weight_std(config: WeightMoments, weights: Weights) -> Values:
    """Standard deviation of the weights (divided by n, not n - 1), of each tensor and of all."""
    return {
        part: (moments.m2 / moments.count) ** 0.5
        for part, moments in _moments(config, weights).items()
    }


@measure("weight_kurtosis", unit="kurtosis")
def weight_kurtosis(config: WeightMoments, weights: Weights) -> Values:
    """Excess kurtosis of the weights, of each tensor and of all; 0 for a normal distribution.

    m4 / m2^2 - 3 with the entries' own central moments, as `scipy.stats.kurtosis` (biased). A
    tensor whose entries are all equal is left out. Raises NotApplicable where all weights are.
    """
    moments = _moments(config, weights)
    if not moments[""].m2:
        raise NotApplicable(f"{weights.name}: all weights are equal, so they have no kurtosis")
    return {part: m.m4 * m.count / m.m2**2 - 3 for part, m in moments.items() if m.m2}


@dataclass(frozen=True)
class Moments:
    """Of `count` numbers: their mean, and the sums of powers of the differences to it."""

    count: int
    mean: float
    m2: float
    m3: float
    m4: float

    @classmethod
    def of(cls, tensor: Tensor) -> "Moments":
        """Of all entries of a tensor [*shape], in float64."""
        numbers = tensor.double().flatten()
        # equal numbers have no variance, whatever rounding makes of their mean
        if numbers.min() == numbers.max():
            return cls(len(numbers), float(numbers[0]), 0.0, 0.0, 0.0)
        mean = numbers.mean()
        away = numbers - mean
        squares = away.square()
        m2, m3, m4 = squares.sum(), squares.dot(away), squares.dot(squares)
        return cls(len(numbers), float(mean), float(m2), float(m3), float(m4))

    @classmethod
    def combined(cls, parts: Iterable["Moments"]) -> "Moments":
        """Of all numbers: the parts' sums, moved to the common mean (Pebay 2008, SAND2008-6212)."""
        summands = list(parts)
        count = sum(part.count for part in summands)
        mean = sum(part.count * part.mean for part in summands) / count
        m2 = m3 = m4 = 0.0
        for part in summands:
            step = part.mean - mean
            m2 += part.m2 + part.count * step**2
            m3 += part.m3 + 3 * step * part.m2 + part.count * step**3
            m4 += part.m4 + 4 * step * part.m3 + 6 * step**2 * part.m2 + part.count * step**4
        return cls(count, mean, m2, m3, m4)


def _moments(config: WeightMoments, weights: Weights) -> dict[str, Moments]:
    """Of all chosen tensors, by "", and of each."""
    parts = weights.remember(
        ("moments", config.names),
        lambda: {name: Moments.of(t) for name, t in weights.floats(config.names) if t.numel()},
    )
    if not parts:
        raise NotApplicable(f"{weights.name}: no tensor has '{config.names}' in its name")
    return {"": Moments.combined(parts.values()), **parts}
