"""When models may be averaged, in sentences; and whether published findings hold here."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vitarium.studies.report.tables import Table
from vitarium.studies.report.texts import Texts
from vitarium.studies.soups.barriers import DIFFERENT, AlignmentEstimate, Barriers, PairEstimate
from vitarium.studies.soups.experiments import GREEDY, MEAN, UNIFORM, MergeResults, label
from vitarium.studies.statistics.bootstrap import Estimate
from vitarium.studies.statistics.stages import Stage

texts, directions = Texts("soups", "sentences"), Texts("soups", "directions")
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
                gains = {"best": best.over_images, "mean": mean.over_images}
                counts = {"better": best.better, "groups": best.groups}
                split = self.results.split
                yield texts("siblings", method=label(method), split=split, **gains, **counts)

    def _pairs(self) -> Iterator[str]:
        """What may be averaged, by pairs of models; and soups across parents."""
        parts: dict[str, list[str]] = {"may": [], "unclear": [], "costs": [], "too_few": []}
        kin = self.barriers.means(self.barriers.kin)
        for prefix, estimates in (("models", kin), ("siblings with", self._rates)):
            for pairs in estimates:
                verdict = "may" if pairs.gain.value >= 0 else "unclear"
                verdict = "costs" if pairs.gain.is_negative else verdict
                verdict = "too_few" if pairs.gain.low is None else verdict
                parts[verdict].append(_named(prefix, pairs))
        note = texts("points")
        for verdict in [verdict for verdict in parts if parts[verdict]]:
            yield texts(verdict, pairs=parts[verdict], note=note)
            note = ""
        if mean := self.results.compare(self.results.groups("across"), UNIFORM, MEAN):
            yield texts("across", gain=mean.over_images, split=self.results.split)

    def _alignments(self) -> Iterator[str]:
        for estimate in self._aligned:
            effect = "lowers" if estimate.reduction.is_positive else "keeps"
            effect = effect if np.isfinite(estimate.share.value) else "no_barrier"
            nats = {"before": estimate.before.value, "after": estimate.after}
            effect = texts(effect, align=label(estimate.align), share=estimate.share, **nats)
            yield texts("alignment", effect=effect, pairs=estimate.pairs, gain=estimate.gain)

    def directions(self) -> Table:
        """Published findings, each with the numbers here; those without numbers are left out."""
        rows = [
            {"published": published, "verdict": f"**{verdict}**", "here": here.replace("**", "")}
            for (published, here), verdict in (*self._of_siblings(), *self._across_parents())
        ]
        return Table.of("Published directions, checked", rows, wrap=True)

    def _of_siblings(self) -> Iterator[tuple[list[str], str]]:
        epochs = self.results.epochs
        validation = {key: [m.averaged.val_accuracy for m in epochs[key]] for key in epochs}
        for key in sorted(epochs, key=lambda key: -float(np.mean(validation[key])))[:1]:
            gains = np.asarray([model.gain for model in epochs[key]])
            mean = self.results.bootstrap.mean(gains)
            verdict = _verdict(mean.is_positive, mean.is_negative)
            if verdict == HOLDS and mean.value > _SMALL_GAIN:
                verdict = f"{HOLDS}, and it is not small"
            counts = {"better": int((gains > 0).sum()), "models": len(gains)}
            yield directions.lines("epochs", last=key[1], gain=mean, **counts), verdict
        rates, closest = self._rates, self.barriers.means(self.barriers.kin[:1])
        for pairs in (rates or closest)[:1]:
            works = pairs.gain.low is not None and pairs.gain.value >= 0
            named = _named("siblings with" if rates else "models", pairs)
            rate = "at the smallest learning rate" if rates else "at any learning rate here"
            here = {"rate": rate, "pairs": named, "barrier": pairs.barrier}
            verdict = _verdict(works, pairs.gain.is_negative)
            yield directions.lines("siblings", **here), verdict
        if len(rates) > 1:
            small, large = rates[0].barrier, rates[-1].barrier
            names = {"smallest": rates[0].name, "largest": rates[-1].name}
            verdict = _verdict(_above(large, small), _above(small, large))
            yield directions.lines("rates", small=small, large=large, **names), verdict

    def _across_parents(self) -> Iterator[tuple[list[str], str]]:
        for pairs in self.barriers.means(self.barriers.unrelated):
            here = {"pairs": _named("models", pairs), "barrier": pairs.barrier}
            verdict = _verdict(pairs.gain.is_negative, pairs.gain.is_positive)
            yield directions.lines("across", **here), verdict
        if self._aligned:
            most = max(self._aligned, key=lambda estimate: estimate.reduction.value)
            reduces, remains = most.reduction.is_positive, most.after.is_positive
            verdict = _verdict(reduces and remains, most.reduction.is_negative)
            if reduces and not remains:
                verdict = f"{FAILS}: no barrier is clearly left"
            nats = {"before": most.before, "after": most.after}
            align = label(most.align)
            yield directions.lines("alignment", align=align, pairs=most.pairs, **nats), verdict

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
    return texts("named", prefix=prefix, name=pairs.name, gain=pairs.gain)


def _above(first: Estimate, second: Estimate) -> bool:
    """Whether one interval lies above another."""
    return first.low is not None and second.high is not None and first.low > second.high


def _verdict(holds: bool, fails: bool) -> str:
    return HOLDS if holds else FAILS if fails else UNCLEAR
