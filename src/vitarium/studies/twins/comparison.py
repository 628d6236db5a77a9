"""An original and its twins, measured: what each takes, loses and wins."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from vitarium.blueprint import CheckpointRef
from vitarium.engine.tuning.gain import Gain
from vitarium.evaluation.inputs import Predictions
from vitarium.studies.statistics.bootstrap import Estimate
from vitarium.studies.twins.families import Twin

COSTS: Mapping[str, str] = {
    "flops": "FLOPs",
    "latency": "latency",
    "parameters": "parameters",
    "bytes": "bytes on disk",
    "peak_memory": "peak memory",
}
"""What a twin is to save, and what it is called."""
ORIGINAL = "original"


@dataclass
class Member:
    """An original, or one of its twins.

    values: by name, those of `MEASURES`, and "bytes", "bytes_in_zoo" and "latency" [s].
    missing: why there is no value, by name.
    """

    ref: CheckpointRef
    twin: Twin | None
    predictions: Predictions | None = None
    values: dict[str, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    speedup: Gain | None = None
    """How many times faster than its original it is."""

    @property
    def method(self) -> str:
        """With its settings, or that it is the original."""
        return self.twin.method if self.twin else ORIGINAL

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Of each image, whether its class is predicted: [images]"""
        assert self.predictions is not None
        values: NDArray[np.bool_] = self.predictions.correct.numpy()
        return values

    @property
    def accuracy(self) -> float | None:
        return None if self.predictions is None else float(self.predictions.correct.double().mean())


@dataclass
class Family:
    """An original and its twins; images are those of the original's data."""

    original: Member
    twins: Sequence[Member]

    @property
    def members(self) -> list[Member]:
        return [self.original, *self.twins]

    @cached_property
    def comparable(self) -> list[Member]:
        """Twins that predict the same images as the original."""
        if self.original.predictions is None:
            return []
        return [twin for twin in self.twins if twin.predictions is not None]

    def lost(self, twin: Member) -> NDArray[np.bool_]:
        """Images that the original has right and the twin does not: [images]"""
        return self.original.correct & ~twin.correct

    def won(self, twin: Member) -> NDArray[np.bool_]:
        """Images that the twin has right and the original does not: [images]"""
        return twin.correct & ~self.original.correct

    def change(self, twin: Member, level: float) -> Estimate:
        """The twin's accuracy less the original's."""
        lost, won = self.lost(twin), self.won(twin)
        return paired_difference(int(lost.sum()), int(won.sum()), len(lost), level)

    def shares(self, cost: str) -> dict[CheckpointRef, float]:
        """Of what the original takes, what each member does, where both are known."""
        if cost == "latency":
            known = {t.ref: 1 / t.speedup.median for t in self.twins if t.speedup}
            return {self.original.ref: 1.0, **known} if known else {}
        if not (total := self.original.values.get(cost)):
            return {}
        return {m.ref: m.values[cost] / total for m in self.members if cost in m.values}

    def front(self, cost: str) -> list[Member]:
        """Members that no other is both as cheap and as accurate as, and better in one of the two,
        the cheapest first."""
        shares = self.shares(cost)
        points = {
            member.ref: (shares[member.ref], -member.accuracy)
            for member in self.members
            if member.ref in shares and member.accuracy is not None
        }
        chosen = [m for m in self.members if m.ref in points and not _dominated(m.ref, points)]
        return sorted(chosen, key=lambda member: points[member.ref])


def _dominated(ref: CheckpointRef, points: Mapping[CheckpointRef, tuple[float, float]]) -> bool:
    """Whether another point is nowhere larger, and somewhere smaller."""
    cost, error = points[ref]
    return any(c <= cost and e <= error and (c, e) != (cost, error) for c, e in points.values())


def accuracy_interval(correct: int, images: int, level: float) -> Estimate:
    """Of a share of images: Wilson's score interval (1927)."""
    interval = stats.binomtest(correct, images).proportion_ci(level, method="wilson")
    return Estimate(correct / images, float(interval.low), float(interval.high), level)


def paired_difference(lost: int, won: int, images: int, level: float) -> Estimate:
    """Of two accuracies on the same images, of which `won` are right in the first alone and `lost`
    in the second alone: Agresti and Min (2005, doi 10.1002/sim.1781), Wald's interval with half an
    image added to each of the four cells."""
    total, difference = images + 2, won - lost
    center = difference / total
    variance = ((won + lost + 1) / total - center**2) / total
    reach = float(stats.norm.ppf((1 + level) / 2)) * variance**0.5
    return Estimate(difference / images, max(center - reach, -1.0), min(center + reach, 1.0), level)


def by_method(families: Sequence[Family]) -> dict[str, list[tuple[Family, Member]]]:
    """Twins that predict their originals' images, with their families, by method with settings."""
    pairs: dict[str, list[tuple[Family, Member]]] = {}
    for family in families:
        for twin in family.comparable:
            pairs.setdefault(twin.method, []).append((family, twin))
    return dict(sorted(pairs.items()))
