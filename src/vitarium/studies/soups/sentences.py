"""When models may be averaged, in sentences; and whether published findings hold here."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from vitarium.studies.report.text import counted, listed, with_interval
from vitarium.studies.soups.estimates import (
    DIFFERENT,
    BarrierEstimates,
    PairEstimate,
    compare,
)
from vitarium.studies.soups.experiments import (
    BEST,
    ENSEMBLE,
    GREEDY,
    MEAN,
    UNIFORM,
    EpochGain,
    MergeResults,
    label,
)
from vitarium.studies.statistics.bootstrap import Bootstrap, Estimate
from vitarium.studies.statistics.stages import Stage

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
    """Sentences about the soups of a stage."""

    stage: Stage
    results: MergeResults
    estimates: BarrierEstimates
    bootstrap: Bootstrap
    split: str

    def headlines(self) -> list[str]:
        """The few sentences that matter most."""
        return [
            *self._soups(),
            *self._when(),
            *self._across(),
            *self._aligned(),
            *self._epochs(),
        ]

    def details(self) -> list[str]:
        return [*self._ensemble(), *self._methods(), *self._siblings()]

    def directions(self) -> list[Direction]:
        """Published findings, each with the numbers here; those without numbers are left out."""
        return [
            *self._epochs_gain(),
            *self._works_at_small_rates(),
            *self._fails_at_large_rates(),
            *self._fails_across(),
            *self._reduces_the_barrier(),
        ]

    # Sentences

    def _soups(self) -> Iterator[str]:
        families = self.results.groups("family")
        for method in (UNIFORM, GREEDY):
            best = compare(self.results, self.bootstrap, families, method)
            mean = compare(self.results, self.bootstrap, families, method, MEAN)
            if best and mean:
                yield (
                    f"The {label(method)} of one parent's children differs from the best of them "
                    f"by validation by {self._points(best.over_images)}, and is better in "
                    f"{best.better} of {counted(best.groups, 'group')}; from their mean by "
                    f"{self._points(mean.over_images)}. Intervals over {self.split} images."
                )

    def _when(self) -> Iterator[str]:
        """What may be averaged, by pairs of models."""
        by_verdict: dict[str, list[str]] = {
            "**One may average** {}: the soup is at least as accurate as they are.": [],
            "**No clear loss or gain** of averaging {}.": [],
            "**Averaging costs accuracy** for {}.": [],
            "Too few models for an interval: {}.": [],
        }
        verdicts = list(by_verdict)
        for pairs in self.estimates.by_kinship() + self._rates():
            if pairs.gain.low is None:
                verdict = verdicts[3]
            elif pairs.gain.is_negative:
                verdict = verdicts[2]
            else:
                verdict = verdicts[0 if pairs.gain.value >= 0 else 1]
            by_verdict[verdict].append(self._pairs(pairs))
        note = (
            " Points: the mean of two models' weights against the mean of their accuracies, with "
            "intervals over models."
        )
        for verdict, parts in by_verdict.items():
            if parts:
                yield verdict.format(listed(parts)) + note
                note = ""

    def _pairs(self, pairs: PairEstimate) -> str:
        prefix = "" if pairs.name.startswith("models") else "siblings with "
        return f"{prefix}{pairs.name} ({self._points(pairs.gain, inside=True)})"

    def _across(self) -> Iterator[str]:
        groups = self.results.groups("across")
        if mean := compare(self.results, self.bootstrap, groups, UNIFORM, MEAN):
            yield (
                "The uniform soup of the best model of each parent differs from their mean by "
                f"{self._points(mean.over_images)}. Interval over {self.split} images."
            )

    def _aligned(self) -> Iterator[str]:
        for estimate in self.estimates.unrelated_aligned():
            pairs = counted(estimate.pairs, "pair")
            points = self._points(estimate.gain)
            gain = f"the aligned soup of two differs from their mean accuracy by {points}."
            if not np.isfinite(estimate.share.value):
                yield (
                    f"Between models of different parents, there is no barrier that "
                    f"{label(estimate.align)} could take away over {pairs}; {gain}"
                )
                continue
            share = with_interval(estimate.share, "share", level=self.bootstrap.confidence_level)
            verb = "takes away" if estimate.reduction.is_positive else "does not clearly lower:"
            yield (
                f"Between models of different parents, {label(estimate.align)} {verb} {share} of "
                f"the barrier, from {estimate.before.value:.2f} to {self._nats(estimate.after)} "
                f"nats over {pairs}; {gain}"
            )

    def _epochs(self) -> Iterator[str]:
        if best := self._best_epochs():
            gains = np.asarray([model.gain for model in best])
            yield (
                f"Averaging a model's last {best[0].last} epochs ({label(best[0].method)}) gains "
                f"{self._points(self.bootstrap.mean(gains))} on average over "
                f"{counted(len(best), 'model')} (interval over models); {int((gains > 0).sum())} "
                f"gain, {int((gains < 0).sum())} lose."
            )

    def _ensemble(self) -> Iterator[str]:
        families = self.results.groups("family")
        if best := compare(self.results, self.bootstrap, families, ENSEMBLE):
            yield (
                f"As a reference, the ensemble of a group's models (their mean logits, as many "
                f"times the cost) differs from the best single model by "
                f"{self._points(best.over_images)}."
            )

    def _methods(self) -> Iterator[str]:
        """All but the soups and the references, the best first."""
        families = self.results.groups("family")
        methods = sorted(self.results.methods(families), key=lambda method: bool(method[1]))
        comparisons = [
            (label(method, align), comparison)
            for method, align in methods
            if method != BEST
            and (align or method not in (UNIFORM, GREEDY, MEAN, ENSEMBLE))
            and (comparison := compare(self.results, self.bootstrap, families, method, align=align))
        ]
        comparisons.sort(key=lambda pair: -pair[1].over_images.value)
        if comparisons:
            gains = [
                f"{name} {self._points(comparison.over_images, inside=True)}"
                for name, comparison in comparisons
            ]
            groups = max(comparison.groups for _, comparison in comparisons)
            yield (
                "Against the best single model, on average over up to "
                f"{counted(groups, 'group')}: {'; '.join(gains)}."
            )

    def _siblings(self) -> Iterator[str]:
        for factor in self.stage.groups:
            if factor.name.startswith("parent"):
                continue
            levels = [e for e in self.estimates.siblings(factor) if e.value != DIFFERENT]
            if len(levels) > 1:
                levels.sort(key=lambda level: level.barrier.value)
                low, high = levels[0], levels[-1]
                yield (
                    f"Siblings with {low.name} have the lowest barrier, {self._nats(low.barrier)} "
                    f"nats; those with {high.name} the highest, {self._nats(high.barrier)} nats."
                )

    # Published directions

    def _epochs_gain(self) -> Iterator[Direction]:
        if best := self._best_epochs():
            gains = np.asarray([model.gain for model in best])
            mean = self.bootstrap.mean(gains)
            verdict = _verdict(mean.is_positive, mean.is_negative)
            if verdict == HOLDS and mean.value > _SMALL_GAIN:
                verdict = f"{HOLDS}, and it is not small"
            yield Direction(
                "Averaging the last epochs gives a small, consistent gain.",
                f"last {best[0].last} epochs: {self._points(mean)}; "
                f"{int((gains > 0).sum())} of {len(gains)} models gain",
                verdict,
            )

    def _works_at_small_rates(self) -> Iterator[Direction]:
        levels, rate = self._rates(), "at the smallest learning rate"
        if not levels:
            closest = self.estimates.paths.kin[0].name
            levels = [pairs for pairs in self.estimates.by_kinship() if pairs.value == closest]
            rate = "at any learning rate here"
        if levels:
            gain = levels[0].gain
            yield Direction(
                "Soups of one parent's children work at small learning rates.",
                f"{rate}: {self._pairs(levels[0])}, barrier {self._nats(levels[0].barrier)} nats",
                _verdict(gain.low is not None and gain.value >= 0, gain.is_negative),
            )

    def _fails_at_large_rates(self) -> Iterator[Direction]:
        levels = self._rates()
        if len(levels) > 1:
            small, large = levels[0].barrier, levels[-1].barrier
            yield Direction(
                "The larger the learning rate, the higher the barrier between siblings.",
                f"barrier {self._nats(small)} nats with {levels[0].name}, {self._nats(large)} "
                f"with {levels[-1].name}",
                _verdict(_above(large, small), _above(small, large)),
            )

    def _fails_across(self) -> Iterator[Direction]:
        if pairs := self.estimates.unrelated():
            yield Direction(
                "Soups across parents fail.",
                f"{self._pairs(pairs)}, barrier {self._nats(pairs.barrier)} nats",
                _verdict(pairs.gain.is_negative, pairs.gain.is_positive),
            )

    def _reduces_the_barrier(self) -> Iterator[Direction]:
        estimates = self.estimates.unrelated_aligned()
        if not estimates:
            return
        best = max(estimates, key=lambda estimate: estimate.reduction.value)
        remains = best.after.is_positive
        verdict = _verdict(best.reduction.is_positive and remains, best.reduction.is_negative)
        if best.reduction.is_positive and not remains:
            verdict = f"{FAILS}: no barrier is clearly left"
        yield Direction(
            "Re-Basin reduces the barrier, and does not remove it.",
            f"{label(best.align)}: from {self._nats(best.before)} to {self._nats(best.after)} nats "
            f"over {counted(best.pairs, 'pair')}",
            verdict,
        )

    def _rates(self) -> list[PairEstimate]:
        """Pairs of siblings with the same learning rate, the smallest rate first."""
        rates = (f for f in self.stage.groups if f.name.rpartition(".")[2] == "lr")
        rate = next(rates, None)
        pairs = self.estimates.siblings(rate) if rate else []
        return [estimate for estimate in pairs if estimate.value != DIFFERENT]

    def _best_epochs(self) -> Sequence[EpochGain]:
        """Of as many epochs, and the operator, that are best by validation."""

        def validation(gains: list[EpochGain]) -> float:
            return float(np.mean([model.averaged.val_accuracy for model in gains]))

        return max(self.results.epochs_by_method().values(), key=validation, default=[])

    # Words

    def _points(self, estimate: Estimate, *, inside: bool = False) -> str:
        return with_interval(estimate, "gain", level=self.bootstrap.confidence_level, inside=inside)

    def _nats(self, estimate: Estimate) -> str:
        return with_interval(estimate, level=self.bootstrap.confidence_level)


def _above(first: Estimate, second: Estimate) -> bool:
    """Whether one interval lies above another."""
    return first.low is not None and second.high is not None and first.low > second.high


def _verdict(holds: bool, fails: bool) -> str:
    return HOLDS if holds else FAILS if fails else UNCLEAR
