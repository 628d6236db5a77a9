"""Gains of ways to combine models, with intervals of the bootstrap over images and over models."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from vitarium.core.seeds import derive
from vitarium.studies.soups.barriers import BEFORE, InterpolationPaths
from vitarium.studies.soups.evaluator import Scores
from vitarium.studies.soups.experiments import BEST, MergeResults
from vitarium.studies.soups.groups import Group
from vitarium.studies.statistics.bootstrap import Bootstrap, Estimate, Numbers
from vitarium.studies.statistics.factors import Factor
from vitarium.studies.statistics.stages import Stage

UNRELATED = "models of different parents"
DIFFERENT = "different"
"""Value of pairs that differ in a factor."""


def over_images(bootstrap: Bootstrap, parts: Sequence[tuple[str, Numbers]]) -> Estimate:
    """The mean over parts, each a number per image, with an interval for other test images.

    Args:
        parts: a key that identifies the part's images, and its numbers [images]. Parts with the
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
    drawn = generator.multinomial(len(values), counts / len(values), size=bootstrap.n_resamples)
    means: Numbers = drawn @ distinct / len(values)
    return means


def accuracy(bootstrap: Bootstrap, scores: Scores) -> Estimate:
    return over_images(bootstrap, [(scores.images, scores.test)])


def gain(bootstrap: Bootstrap, pairs: Iterable[tuple[Scores, Scores]]) -> Estimate:
    """The mean of what the first has more than the second, on the same images."""
    return over_images(bootstrap, [(a.images, a.test - b.test) for a, b in pairs])


@dataclass(frozen=True)
class Comparison:
    """A way to combine models against another way, over the groups that have both."""

    over_images: Estimate
    """Interval for other test images."""
    over_groups: Estimate
    """Interval for other groups; none for fewer than four."""
    groups: int
    better: int
    """Groups in which it is better."""


def compare(
    results: MergeResults,
    bootstrap: Bootstrap,
    groups: Sequence[Group],
    method: str,
    against: str = BEST,
    align: str = "",
) -> Comparison | None:
    """None where no group has both."""
    pairs = [
        (result.scores, reference.scores)
        for group in groups
        if (result := results.get(group, method, align))
        and (reference := results.get(group, against))
    ]
    if not pairs:
        return None
    gains = np.asarray([scores.accuracy - reference.accuracy for scores, reference in pairs])
    return Comparison(
        gain(bootstrap, pairs), bootstrap.mean(gains), len(pairs), int((gains > 0).sum())
    )


@dataclass(frozen=True)
class PairEstimate:
    """Pairs of siblings that share a value of a factor, or pairs of one kinship."""

    name: str
    factor: str
    value: str
    pairs: int
    barrier: Estimate
    gain: Estimate
    """Accuracy of the two models' soup less their mean."""


@dataclass(frozen=True)
class AlignmentEstimate:
    """Pairs of one kinship, before and after an alignment."""

    align: str
    kin: str
    pairs: int
    before: Estimate
    after: Estimate
    reduction: Estimate
    """Nats."""
    share: Estimate
    """Of the barrier that is taken away; NaN where there is none."""
    gain: Estimate
    """As of `PairEstimate`, after the alignment."""


class BarrierEstimates:
    """Means over the paths between the models of a stage; intervals are over models."""

    def __init__(self, stage: Stage, paths: InterpolationPaths, bootstrap: Bootstrap) -> None:
        self.stage, self.paths, self.bootstrap = stage, paths, bootstrap

    @cached_property
    def barriers(self) -> Numbers:
        """The barrier between each two models of the stage, [models, models]."""
        return self.paths.matrix(self.stage, "barrier")

    @cached_property
    def gains(self) -> Numbers:
        """What the midpoint of each two models gains over their mean accuracy, [models, models]."""
        return self.paths.matrix(self.stage, "soup_gain")

    def by_kinship(self) -> list[PairEstimate]:
        """The closest kin first; those without paths left out."""
        estimates = (
            self._pairs(f"models {kin.name}", "kinship", kin.name, kin.mask)
            for kin in self.paths.kin
        )
        return [estimate for estimate in estimates if estimate.pairs]

    @property
    def unrelated_mask(self) -> NDArray[np.bool_]:
        """Pairs of models of different parents, [models, models]."""
        none = np.zeros((len(self.stage),) * 2, dtype=bool)
        return np.logical_or.reduce([none, *(kin.mask for kin in self.paths.kin[1:])])

    def unrelated(self) -> PairEstimate | None:
        """All pairs of different parents together; None where there are none."""
        estimate = self._pairs(UNRELATED, "kinship", UNRELATED, self.unrelated_mask)
        return estimate if estimate.pairs else None

    def siblings(self, factor: Factor) -> list[PairEstimate]:
        """Siblings that share each value of a factor, and those that differ in it."""
        siblings = self.paths.kin[0].mask
        labels = np.asarray(factor.labels[self.stage.ids].tolist())
        equal = labels[:, None] == labels[None, :]
        groups = [
            (f"{factor.name} = {value}", value, equal & (labels == value)[:, None])
            for value in factor.values
        ]
        groups.append((f"{DIFFERENT} {factor.name}", DIFFERENT, ~equal))
        estimates = (
            self._pairs(name, factor.name, value, mask & siblings) for name, value, mask in groups
        )
        return [estimate for estimate in estimates if estimate.pairs]

    def aligned(self) -> list[AlignmentEstimate]:
        """Each alignment for each kinship, the closest kin first."""
        return self._alignments([(kin.name, kin.mask) for kin in self.paths.kin])

    def unrelated_aligned(self) -> list[AlignmentEstimate]:
        """Each alignment, of all pairs of different parents together."""
        return self._alignments([(UNRELATED, self.unrelated_mask)])

    def _alignments(
        self, kinds: Sequence[tuple[str, NDArray[np.bool_]]]
    ) -> list[AlignmentEstimate]:
        estimates = (
            self._aligned(align, kin, mask)
            for kin, mask in kinds
            for align in self.paths.alignments
            if align != BEFORE
        )
        return [estimate for estimate in estimates if estimate]

    def _aligned(self, align: str, kin: str, mask: NDArray[np.bool_]) -> AlignmentEstimate | None:
        after = self.paths.matrix(self.stage, "barrier", align)
        valid = mask & np.isfinite(after) & np.isfinite(self.barriers)
        if not valid.any():
            return None
        mean = self.bootstrap.pairs
        gains = self.paths.matrix(self.stage, "soup_gain", align)
        counts = np.vstack([np.ones(len(self.stage)), self.bootstrap.counts(len(self.stage))])
        sums = [_sums(values, valid, counts) for values in (self.barriers, after)]
        shares = np.divide(
            sums[0] - sums[1], sums[0], out=np.full(len(counts), math.nan), where=sums[0] > 0
        )
        return AlignmentEstimate(
            align,
            kin,
            int(valid.sum()) // 2,
            mean(self.barriers, valid),
            mean(after, valid),
            mean(self.barriers - after, valid),
            self.bootstrap.estimate(float(shares[0]), shares[1:], int(valid.any(1).sum())),
            mean(gains, valid),
        )

    def _pairs(self, name: str, factor: str, value: str, mask: NDArray[np.bool_]) -> PairEstimate:
        valid = mask & np.isfinite(self.barriers)
        return PairEstimate(
            name,
            factor,
            value,
            int(valid.sum()) // 2,
            self.bootstrap.pairs(self.barriers, valid),
            self.bootstrap.pairs(self.gains, valid),
        )


def _sums(values: Numbers, mask: NDArray[np.bool_], counts: Numbers) -> Numbers:
    """Over the pairs of a mask, of each draw of models."""
    weighted = np.where(mask, values, 0.0)
    sums: Numbers = ((counts @ weighted) * counts).sum(1)
    return sums
