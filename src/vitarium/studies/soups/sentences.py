"""When models may be averaged, in sentences; and whether published findings hold here."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from vitarium.studies.report.text import counted, listed, with_interval
from vitarium.studies.soups.barriers import DIFFERENT, Barriers, PairEstimate
from vitarium.studies.soups.results import GREEDY, MEAN, UNIFORM, EpochGain, MergeResults, label
from vitarium.studies.statistics.bootstrap import Estimate

_SMALL_GAIN = 0.02
"""A gain of accuracy up to which one calls it small."""
HOLDS, FAILS, UNCLEAR = "holds here", "does not hold here", "not clear here"


class Direction(NamedTuple):
    """A published finding, the numbers here, and whether it holds."""

    published: str
    here: str
    verdict: str


@dataclass(frozen=True)
class SoupSentences:
    """Sentences about the soups of a stage; `**` stands around what matters."""

    results: MergeResults
    barriers: Barriers

    def headlines(self) -> list[str]:
        """The few sentences that matter most; the tables have all numbers."""
        return [*self._soups(), *self._pairs(), *self._alignments(), *self._epochs()]

    def _soups(self) -> Iterator[str]:
        """Soups of siblings, against the best and the mean of them."""
        families = self.results.groups("family")
        split = self.results.split
        for method in (UNIFORM, GREEDY):
            best, mean = (self.results.compare(families, method, *a) for a in ((), (MEAN,)))
            if best and mean:
                yield (
                    f"The {label(method)} of one parent's children differs from the best of them "
                    f"by validation by {self._points(best.over_images)}, and is better in "
                    f"{best.better} of {counted(best.groups, 'group')}; from their mean by "
                    f"{self._points(mean.over_images)}. Intervals over {split} images."
                )

    def _pairs(self) -> Iterator[str]:
        """What may be averaged, by pairs of models; and soups across parents."""
        by_verdict: dict[str, list[str]] = {
            "**One may average** {}: the soup is at least as accurate as they are.": [],
            "**No clear loss or gain** of averaging {}.": [],
            "**Averaging costs accuracy** for {}.": [],
            "Too few models for an interval: {}.": [],
        }
        may, unclear, costs, too_few = by_verdict.values()
        for pairs in self.barriers.by_kinship() + self._rates():
            verdict = may if pairs.gain.value >= 0 else unclear
            verdict = costs if pairs.gain.is_negative else verdict
            verdict = too_few if pairs.gain.low is None else verdict
            verdict.append(self._named(pairs))
        note = (
            " Points: the mean of two models' weights against the mean of their accuracies, with "
            "intervals over models."
        )
        for template, parts in by_verdict.items():
            if parts:
                yield template.format(listed(parts)) + note
                note = ""
        across = self.results.groups("across")
        if mean := self.results.compare(across, UNIFORM, MEAN):
            yield (
                "The uniform soup of the best model of each parent differs from their mean by "
                f"{self._points(mean.over_images)}. Interval over {self.results.split} images."
            )

    def _alignments(self) -> Iterator[str]:
        for estimate in self.barriers.unrelated_aligned():
            align, over = label(estimate.align), f"over {counted(estimate.pairs, 'pair')}"
            share = with_interval(estimate.share, "share", level=self._level)
            verb = "takes away" if estimate.reduction.is_positive else "does not clearly lower:"
            effect = (
                f"{align} {verb} {share} of the barrier, from {estimate.before.value:.2f} to "
                f"{self._nats(estimate.after)} nats"
            )
            if not np.isfinite(estimate.share.value):
                effect = f"there is no barrier that {align} could take away"
            yield (
                f"Between models of different parents, {effect} {over}; the aligned soup of two "
                f"differs from their mean accuracy by {self._points(estimate.gain)}."
            )

    def _epochs(self) -> Iterator[str]:
        if best := self._best_epochs():
            gains = np.asarray([model.gain for model in best])
            yield (
                f"Averaging a model's last {best[0].last} epochs ({label(best[0].method)}) gains "
                f"{self._points(self.results.bootstrap.mean(gains))} on average over "
                f"{counted(len(best), 'model')} (interval over models); {int((gains > 0).sum())} "
                f"gain, {int((gains < 0).sum())} lose."
            )

    def directions(self) -> Iterator[Direction]:
        """Published findings, each with the numbers here; those without numbers are left out."""
        if best := self._best_epochs():
            gains = np.asarray([model.gain for model in best])
            mean = self.results.bootstrap.mean(gains)
            verdict = _verdict(mean.is_positive, mean.is_negative)
            if verdict == HOLDS and mean.value > _SMALL_GAIN:
                verdict = f"{HOLDS}, and it is not small"
            yield Direction(
                "Averaging the last epochs gives a small, consistent gain.",
                f"last {best[0].last} epochs: {self._points(mean)}; "
                f"{int((gains > 0).sum())} of {len(gains)} models gain",
                verdict,
            )
        rates, siblings = self._rates(), self.barriers.kin[0].name
        closest = [pairs for pairs in self.barriers.by_kinship() if pairs.value == siblings]
        for pairs in (rates or closest)[:1]:
            rate = "at the smallest learning rate" if rates else "at any learning rate here"
            works = pairs.gain.low is not None and pairs.gain.value >= 0
            yield Direction(
                "Soups of one parent's children work at small learning rates.",
                f"{rate}: {self._named(pairs)}, barrier {self._nats(pairs.barrier)} nats",
                _verdict(works, pairs.gain.is_negative),
            )
        if len(rates) > 1:
            small, large = rates[0].barrier, rates[-1].barrier
            yield Direction(
                "The larger the learning rate, the higher the barrier between siblings.",
                f"barrier {self._nats(small)} nats with {rates[0].name}, {self._nats(large)} "
                f"with {rates[-1].name}",
                _verdict(_above(large, small), _above(small, large)),
            )
        for pairs in self.barriers.unrelated():
            yield Direction(
                "Soups across parents fail.",
                f"{self._named(pairs)}, barrier {self._nats(pairs.barrier)} nats",
                _verdict(pairs.gain.is_negative, pairs.gain.is_positive),
            )
        if aligned := self.barriers.unrelated_aligned():
            most = max(aligned, key=lambda estimate: estimate.reduction.value)
            reduces, remains = most.reduction.is_positive, most.after.is_positive
            verdict = _verdict(reduces and remains, most.reduction.is_negative)
            if reduces and not remains:
                verdict = f"{FAILS}: no barrier is clearly left"
            yield Direction(
                "Re-Basin reduces the barrier, and does not remove it.",
                f"{label(most.align)}: from {self._nats(most.before)} to {self._nats(most.after)} "
                f"nats over {counted(most.pairs, 'pair')}",
                verdict,
            )

    def _rates(self) -> list[PairEstimate]:
        """Pairs of siblings with the same learning rate, the smallest rate first."""
        rates = (f for f in self.barriers.factors if f.name.rpartition(".")[2] == "lr")
        rate = next(rates, None)
        pairs = self.barriers.siblings(rate) if rate else []
        return [estimate for estimate in pairs if estimate.value != DIFFERENT]

    def _best_epochs(self) -> Sequence[EpochGain]:
        """Of as many epochs, and the operator, that are best by validation."""

        def validation(gains: list[EpochGain]) -> float:
            return float(np.mean([model.averaged.val_accuracy for model in gains]))

        return max(self.results.epochs_by_method().values(), key=validation, default=[])

    @property
    def _level(self) -> float:
        return self.results.bootstrap.confidence_level

    def _named(self, pairs: PairEstimate) -> str:
        prefix = "" if pairs.name.startswith("models") else "siblings with "
        gain = with_interval(pairs.gain, "gain", level=self._level, inside=True)
        return f"{prefix}{pairs.name} ({gain})"

    def _points(self, estimate: Estimate) -> str:
        return with_interval(estimate, "gain", level=self._level)

    def _nats(self, estimate: Estimate) -> str:
        return with_interval(estimate, level=self._level)


def _above(first: Estimate, second: Estimate) -> bool:
    """Whether one interval lies above another."""
    return first.low is not None and second.high is not None and first.low > second.high


def _verdict(holds: bool, fails: bool) -> str:
    return HOLDS if holds else FAILS if fails else UNCLEAR
