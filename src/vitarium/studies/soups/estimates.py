"""Gains of ways to combine models, with intervals of the bootstrap over images and over models."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from vitarium.core.seeds import derive
from vitarium.studies.soups.barriers import BEFORE, Lines
from vitarium.studies.soups.groups import Group
from vitarium.studies.soups.results import BEST, Result, Results
from vitarium.studies.soups.runs import Scores
from vitarium.studies.statistics.bootstrap import Bootstrap, Estimate, Numbers
from vitarium.studies.statistics.factors import Factor
from vitarium.studies.statistics.population import Stage

STRANGERS = "models of different parents"


def over_images(bootstrap: Bootstrap, parts: Sequence[tuple[str, Numbers]]) -> Estimate:
    """The mean over parts, each a number per image, with an interval for other test images.

    Args:
        parts: what tells a part's images from all others, and its numbers [images]. Parts with the
            same images share each draw of them.
    """
    if not parts:
        return Estimate(math.nan, None, None)
    sums: dict[str, Numbers] = {}
    for images, values in parts:
        sums[images] = sums.get(images, np.zeros(len(values))) + values
    drawn = sum(_drawn_means(bootstrap, images, values) for images, values in sums.items())
    value = sum(float(values.mean()) for values in sums.values())
    fewest = min(len(values) for values in sums.values())
    return bootstrap.estimate(value / len(parts), np.asarray(drawn) / len(parts), fewest)


def _drawn_means(bootstrap: Bootstrap, images: str, values: Numbers) -> Numbers:
    """Means of draws of images; equal numbers are drawn together, which changes no chance."""
    distinct, counts = np.unique(values, return_counts=True)
    generator = np.random.default_rng(derive(bootstrap.seed, "images", images))
    drawn = generator.multinomial(len(values), counts / len(values), size=bootstrap.draws)
    means: Numbers = drawn @ distinct / len(values)
    return means


def accuracy(bootstrap: Bootstrap, scores: Scores) -> Estimate:
    return over_images(bootstrap, [(scores.images, scores.test)])


def gain(bootstrap: Bootstrap, pairs: Iterable[tuple[Scores, Scores]]) -> Estimate:
    """The mean of what the first has more than the second, on the same images."""
    return over_images(bootstrap, [(one.images, one.test - other.test) for one, other in pairs])


@dataclass(frozen=True)
class Compared:
    """A way to combine models against another way, over the groups that have both."""

    of_images: Estimate
    """Interval for other test images."""
    of_groups: Estimate
    """Interval for other groups; none for fewer than four."""
    groups: int
    better: int
    """Groups in which it is better."""


def compared(
    results: Results,
    bootstrap: Bootstrap,
    groups: Sequence[Group],
    method: str,
    against: str = BEST,
    align: str = "",
) -> Compared | None:
    """None where no group has both."""
    both: list[tuple[Result, Result]] = []
    for group in groups:
        one, other = results.get(group, method, align), results.get(group, against)
        if one and other:
            both.append((one, other))
    if not both:
        return None
    gains = np.asarray([one.scores.accuracy - other.scores.accuracy for one, other in both])
    return Compared(
        gain(bootstrap, [(one.scores, other.scores) for one, other in both]),
        bootstrap.mean(gains),
        len(both),
        int((gains > 0).sum()),
    )


@dataclass(frozen=True)
class Level:
    """Pairs of siblings that share a value of a factor, or pairs of one kinship."""

    name: str
    factor: str
    value: str
    pairs: int
    barrier: Estimate
    gain: Estimate
    """Accuracy of the two models' soup less their mean."""


@dataclass(frozen=True)
class Aligned:
    """Pairs of one kinship, before and after an alignment."""

    align: str
    kin: str
    pairs: int
    before: Estimate
    after: Estimate
    reduction: Estimate
    """Nats."""
    share: Estimate
    """Of the barrier that is taken away."""
    gain: Estimate
    """As of `Level`, after the alignment."""


class Walks:
    """Means over the lines between the models of a stage; intervals are over models."""

    def __init__(self, stage: Stage, lines: Lines, bootstrap: Bootstrap) -> None:
        self.stage, self.lines, self.bootstrap = stage, lines, bootstrap

    @cached_property
    def barriers(self) -> Numbers:
        return self.lines.matrix(self.stage, "barrier")

    @cached_property
    def gains(self) -> Numbers:
        return self.lines.matrix(self.stage, "soup_gain")

    def by_kinship(self) -> list[Level]:
        """The closest kin first; those without lines left out."""
        return [
            self._level(f"models {kin.name}", "kinship", kin.name, kin.chosen)
            for kin in self.lines.kin
            if (kin.chosen & np.isfinite(self.barriers)).any()
        ]

    @property
    def apart(self) -> NDArray[np.bool_]:
        """Pairs of models of different parents."""
        none = np.zeros((len(self.stage),) * 2, dtype=bool)
        return np.logical_or.reduce([none, *(kin.chosen for kin in self.lines.kin[1:])])

    def of_strangers(self) -> Level | None:
        """All pairs of different parents together; None where there are none."""
        level = self._level(STRANGERS, "kinship", STRANGERS, self.apart)
        return level if level.pairs else None

    def of_siblings(self, factor: Factor) -> list[Level]:
        """Siblings that share each value of a factor, and those that differ in it."""
        siblings = self.lines.kin[0].chosen
        labels = np.asarray(factor.labels[self.stage.ids].tolist())
        alike = labels[:, None] == labels[None, :]
        found = [
            (f"{factor.name} = {value}", value, alike & (labels == value)[:, None])
            for value in factor.values
        ]
        found.append((f"different {factor.name}", "different", ~alike))
        return [
            self._level(name, factor.name, value, chosen & siblings)
            for name, value, chosen in found
            if (chosen & siblings & np.isfinite(self.barriers)).any()
        ]

    def aligned(self) -> list[Aligned]:
        """Each alignment for each kinship, the closest kin first."""
        found = (
            self._aligned(align, kin.name, kin.chosen)
            for kin in self.lines.kin
            for align in self.lines.alignments
            if align != BEFORE
        )
        return [one for one in found if one]

    def strangers_aligned(self) -> list[Aligned]:
        """Each alignment, of all pairs of different parents together."""
        aligns = [align for align in self.lines.alignments if align != BEFORE]
        found = (self._aligned(align, STRANGERS, self.apart) for align in aligns)
        return [one for one in found if one]

    def _aligned(self, align: str, kin: str, chosen: NDArray[np.bool_]) -> Aligned | None:
        after = self.lines.matrix(self.stage, "barrier", align)
        there = chosen & np.isfinite(after) & np.isfinite(self.barriers)
        if not there.any():
            return None
        mean = self.bootstrap.pairs
        gains = self.lines.matrix(self.stage, "soup_gain", align)
        counts = np.vstack([np.ones(len(self.stage)), self.bootstrap.counts(len(self.stage))])
        sums = [_sums(values, there, counts) for values in (self.barriers, after)]
        shares = np.divide(
            sums[0] - sums[1], sums[0], out=np.full(len(counts), math.nan), where=sums[0] > 0
        )
        return Aligned(
            align,
            kin,
            int(there.sum()) // 2,
            mean(self.barriers, there),
            mean(after, there),
            mean(self.barriers - after, there),
            self.bootstrap.estimate(float(shares[0]), shares[1:], int(there.any(1).sum())),
            mean(gains, there),
        )

    def _level(self, name: str, factor: str, value: str, chosen: NDArray[np.bool_]) -> Level:
        there = chosen & np.isfinite(self.barriers)
        return Level(
            name,
            factor,
            value,
            int(there.sum()) // 2,
            self.bootstrap.pairs(self.barriers, there),
            self.bootstrap.pairs(self.gains, there),
        )


def _sums(values: Numbers, chosen: NDArray[np.bool_], counts: Numbers) -> Numbers:
    """Over chosen pairs, of each draw of models."""
    weighted = np.where(chosen, values, 0.0)
    sums: Numbers = ((counts @ weighted) * counts).sum(1)
    return sums
