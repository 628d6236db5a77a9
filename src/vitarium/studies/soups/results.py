"""What comes of combining models, with intervals of the bootstrap over images and over groups."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from vitarium.core.seeds import derive
from vitarium.studies.soups.evaluator import Scores
from vitarium.studies.soups.groups import Group
from vitarium.studies.statistics.bootstrap import Bootstrap, Estimate, Numbers

BEST, MEAN, ENSEMBLE = "best single", "mean single", "ensemble of logits"
UNIFORM, GREEDY = "uniform_soup", "greedy_soup"


def label(method: str, align: str = "") -> str:
    """As the page calls it."""
    words = method.replace("_", " ")
    return f"{words} after {align.replace('_', ' ')}" if align else words


@dataclass(frozen=True)
class MergeResult:
    """The scores of one method on one group."""

    group: Group
    method: str
    scores: Scores
    align: str = ""
    """What rearranged the models before; empty: nothing."""
    heads: str = "merge"
    count: int = 0
    """Of models that were combined."""

    @property
    def label(self) -> str:
        return label(self.method, self.align)


@dataclass(frozen=True)
class EpochGain:
    """A model, and the average of its last epochs."""

    model: str
    method: str
    last: int
    """How many epochs."""
    single: Scores
    averaged: Scores

    @property
    def gain(self) -> float:
        return self.averaged.accuracy - self.single.accuracy


@dataclass(frozen=True)
class Failure:
    """What could not be combined or measured, of which models, and why."""

    method: str
    models: str
    why: str


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


@dataclass
class MergeResults:
    """Of all groups of a stage."""

    bootstrap: Bootstrap
    split: str
    results: list[MergeResult] = field(default_factory=list)
    curves: list[MergeResult] = field(default_factory=list)
    """Of the best `count` models by validation."""
    epochs: list[EpochGain] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    def of(self, group: Group) -> list[MergeResult]:
        return [result for result in self.results if result.group == group]

    def get(self, group: Group, method: str, align: str = "") -> MergeResult | None:
        of_group = self.of(group)
        return next((r for r in of_group if (r.method, r.align) == (method, align)), None)

    def groups(self, *kinds: str) -> list[Group]:
        return list(dict.fromkeys(r.group for r in self.results if r.group.kind in kinds))

    def methods(self, groups: Iterable[Group]) -> list[tuple[str, str]]:
        """Methods, each with an alignment or none, in the order in which they were tried."""
        return list(dict.fromkeys((r.method, r.align) for g in groups for r in self.of(g)))

    def epochs_by_method(self) -> dict[tuple[str, int], list[EpochGain]]:
        """By operator and number of epochs."""
        gains: dict[tuple[str, int], list[EpochGain]] = {}
        for gain in self.epochs:
            gains.setdefault((gain.method, gain.last), []).append(gain)
        return gains

    def compare(
        self, groups: Sequence[Group], method: str, against: str = BEST, align: str = ""
    ) -> Comparison | None:
        """None where no group has both."""
        pairs = [
            (result.scores, reference.scores)
            for group in groups
            if (result := self.get(group, method, align))
            and (reference := self.get(group, against))
        ]
        if not pairs:
            return None
        gains = np.asarray([scores.accuracy - reference.accuracy for scores, reference in pairs])
        over_groups = self.bootstrap.mean(gains)
        return Comparison(self.gain(pairs), over_groups, len(pairs), int((gains > 0).sum()))

    def accuracy(self, scores: Scores) -> Estimate:
        return over_images(self.bootstrap, [(scores.images, scores.test)])

    def gain(self, pairs: Iterable[tuple[Scores, Scores]]) -> Estimate:
        """The mean of what the first has more than the second, on the same images."""
        return over_images(self.bootstrap, [(a.images, a.test - b.test) for a, b in pairs])


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
    drawn = np.zeros(bootstrap.n_resamples)
    for images, values in sums.items():
        # equal numbers are drawn together, which changes no chance
        distinct, counts = np.unique(values, return_counts=True)
        generator = np.random.default_rng(derive(bootstrap.seed, "images", images))
        shares = counts / len(values)
        draws = generator.multinomial(len(values), shares, size=bootstrap.n_resamples)
        drawn += draws @ distinct / len(values)
    value = sum(float(values.mean()) for values in sums.values())
    fewest = min(len(values) for values in sums.values())
    return bootstrap.estimate(value / len(parts), drawn / len(parts), fewest)
