"""How many times faster one training mode is than another, and whether that is more than noise."""

import statistics
from collections.abc import Iterable
from typing import NamedTuple


class Gain(NamedTuple):
    """Of ratios of two steps that followed each other: median and quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, ratios: Iterable[float]) -> "Gain":
        """Of two ratios or more."""
        low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
        return cls(median, low, high)

    def is_clear(self, threshold: float) -> bool:
        """Whether the median reaches the threshold, and what is gained exceeds the spread.

        The spread is the distance between the quartiles: half of the ratios lie within it.
        """
        return self.median >= threshold and self.median - 1 > self.high - self.low

    def __str__(self) -> str:
        return f"{self.median:.1f} times as fast, quartiles {self.low:.1f} and {self.high:.1f}"
