"""When models may be averaged, in sentences; and whether published findings hold here."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vitarium.studies.report.tables import Table
from vitarium.studies.report.text import counted, listed, with_interval
from vitarium.studies.soups.barriers import DIFFERENT, AlignmentEstimate, Barriers, PairEstimate
from vitarium.studies.soups.experiments import GREEDY, MEAN, UNIFORM, MergeResults, label
from vitarium.studies.statistics.bootstrap import Estimate
from vitarium.studies.statistics.stages import Stage

_SMALL_GAIN = 0.02  # a gain of accuracy up to which one calls it small
HOLDS, FAILS, UNCLEAR = "holds here", "does not hold here", "not clear here"


@dataclass(frozen=True)
class StageSoups:
    """What was computed of a stage, and sentences about it; `**` stands around what matters."""

    stage: Stage
    results: MergeResults
    barriers: Barriers

    @property
    def models(self) -> int:
        return sum(parent is not None for parent in self.stage.parents)

    @property
    def headlines(self) -> list[str]:
        """The few sentences that matter most; the tables have all others."""
        return [*self._soups(), *self._pairs(), *self._alignments()]

    def _soups(self) -> Iterator[str]:
        """Soups of siblings, against the best and the mean of them."""
        families = self.results.groups("family")
        for method in (UNIFORM, GREEDY):
            best, mean = (self.results.compare(families, method, *a) for a in ((), (MEAN,)))
            if best and mean:
                gains = [with_interval(each.over_images, "gain") for each in (best, mean)]
                yield (
                    f"The {label(method)} of one parent's children differs from the best of them "
                    f"by validation by {gains[0]}, and is better in {best.better} of "
                    f"{counted(best.groups, 'group')}; from their mean by {gains[1]}. Intervals "
                    f"over {self.results.split} images."
                )

    def _pairs(self) -> Iterator[str]:
        """What may be averaged, by pairs of models; and soups across parents."""
        may = "**One may average** {}: the soup is at least as accurate as they are."
        unclear = "**No clear loss or gain** of averaging {}."
        costs = "**Averaging costs accuracy** for {}."
        too_few = "Too few models for an interval: {}."
        parts: dict[str, list[str]] = {may: [], unclear: [], costs: [], too_few: []}
        kin = self.barriers.means(self.barriers.kin)
        for prefix, estimates in (("models", kin), ("siblings with", self._rates)):
            for pairs in estimates:
                verdict = may if pairs.gain.value >= 0 else unclear
                verdict = costs if pairs.gain.is_negative else verdict
                verdict = too_few if pairs.gain.low is None else verdict
                parts[verdict].append(_named(prefix, pairs))
        note = (
            " Points: the mean of two models' weights against the mean of their accuracies, with "
            "intervals over models."
        )
        for verdict in [verdict for verdict in parts if parts[verdict]]:
            yield verdict.format(listed(parts[verdict])) + note
            note = ""
        if mean := self.results.compare(self.results.groups("across"), UNIFORM, MEAN):
            gain = with_interval(mean.over_images, "gain")
            yield (
                "The uniform soup of the best model of each parent differs from their mean by "
                f"{gain}. Interval over {self.results.split} images."
            )

    def _alignments(self) -> Iterator[str]:
        for estimate in self._aligned:
            align, share = label(estimate.align), with_interval(estimate.share, "share")
            verb = "takes away" if estimate.reduction.is_positive else "does not clearly lower:"
            effect = (
                f"{align} {verb} {share} of the barrier, from {estimate.before.value:.2f} to "
                f"{with_interval(estimate.after)} nats"
            )
            if not np.isfinite(estimate.share.value):
                effect = f"there is no barrier that {align} could take away"
            yield (
                f"Between models of different parents, {effect} over "
                f"{counted(estimate.pairs, 'pair')}; the aligned soup of two differs from their "
                f"mean accuracy by {with_interval(estimate.gain, 'gain')}."
            )

    def directions(self) -> Table:
        """Published findings, each with the numbers here; those without numbers are left out."""
        rows = [
            {"published": published, "verdict": f"**{verdict}**", "here": here.replace("**", "")}
            for published, here, verdict in (*self._of_siblings(), *self._across_parents())
        ]
        return Table.of("Published directions, checked", rows, wrap=True)

    def _of_siblings(self) -> Iterator[tuple[str, str, str]]:
        epochs = self.results.epochs
        validation = {key: [m.averaged.val_accuracy for m in epochs[key]] for key in epochs}
        for key in sorted(epochs, key=lambda key: -float(np.mean(validation[key])))[:1]:
            gains = np.asarray([model.gain for model in epochs[key]])
            mean = self.results.bootstrap.mean(gains)
            verdict = _verdict(mean.is_positive, mean.is_negative)
            if verdict == HOLDS and mean.value > _SMALL_GAIN:
                verdict = f"{HOLDS}, and it is not small"
            yield (
                "Averaging the last epochs gives a small, consistent gain.",
                f"last {key[1]} epochs: {with_interval(mean, 'gain')}; "
                f"{int((gains > 0).sum())} of {len(gains)} models gain",
                verdict,
            )
        rates, closest = self._rates, self.barriers.means(self.barriers.kin[:1])
        for pairs in (rates or closest)[:1]:
            rate = "at the smallest learning rate" if rates else "at any learning rate here"
            works = pairs.gain.low is not None and pairs.gain.value >= 0
            named = _named("siblings with" if rates else "models", pairs)
            yield (
                "Soups of one parent's children work at small learning rates.",
                f"{rate}: {named}, barrier {with_interval(pairs.barrier)} nats",
                _verdict(works, pairs.gain.is_negative),
            )
        if len(rates) > 1:
            small, large = rates[0].barrier, rates[-1].barrier
            yield (
                "The larger the learning rate, the higher the barrier between siblings.",
                f"barrier {with_interval(small)} nats with {rates[0].name}, {with_interval(large)} "
                f"with {rates[-1].name}",
                _verdict(_above(large, small), _above(small, large)),
            )

    def _across_parents(self) -> Iterator[tuple[str, str, str]]:
        for pairs in self.barriers.means(self.barriers.unrelated):
            yield (
                "Soups across parents fail.",
                f"{_named('models', pairs)}, barrier {with_interval(pairs.barrier)} nats",
                _verdict(pairs.gain.is_negative, pairs.gain.is_positive),
            )
        if self._aligned:
            most = max(self._aligned, key=lambda estimate: estimate.reduction.value)
            before, after = with_interval(most.before), with_interval(most.after)
            reduces, remains = most.reduction.is_positive, most.after.is_positive
            verdict = _verdict(reduces and remains, most.reduction.is_negative)
            if reduces and not remains:
                verdict = f"{FAILS}: no barrier is clearly left"
            pairs_text = counted(most.pairs, "pair")
            yield (
                "Re-Basin reduces the barrier, and does not remove it.",
                f"{label(most.align)}: from {before} to {after} nats over {pairs_text}",
                verdict,
            )

    @cached_property
    def _rates(self) -> list[PairEstimate]:
        """Pairs of siblings with the same learning rate, the smallest rate first."""
        factors = [f for f in self.barriers.factors if f.name.rpartition(".")[2] == "lr"]
        pairs = [kin for factor in factors[:1] for kin in self.barriers.siblings(factor)]
        return self.barriers.means(kin for kin in pairs if not kin.name.startswith(DIFFERENT))

    @cached_property
    def _aligned(self) -> list[AlignmentEstimate]:
        """Models of different parents, before and after each alignment."""
        return self.barriers.aligned(self.barriers.unrelated)


def _named(prefix: str, pairs: PairEstimate) -> str:
    return f"{prefix} {pairs.name} ({with_interval(pairs.gain, 'gain', inside=True)})"


def _above(first: Estimate, second: Estimate) -> bool:
    """Whether one interval lies above another."""
    return first.low is not None and second.high is not None and first.low > second.high


def _verdict(holds: bool, fails: bool) -> str:
    return HOLDS if holds else FAILS if fails else UNCLEAR
