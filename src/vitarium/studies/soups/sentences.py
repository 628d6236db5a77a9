"""When models may be averaged, in sentences; and whether published findings hold here."""

from dataclasses import dataclass

import numpy as np

from vitarium.studies.report.text import counted, listed, share_with_interval, with_interval
from vitarium.studies.soups.estimates import Aligned, Compared, Level, Walks, compared
from vitarium.studies.soups.results import (
    ENSEMBLE,
    GREEDY,
    MEAN,
    UNIFORM,
    EpochGain,
    Results,
    label,
)
from vitarium.studies.statistics.bootstrap import Bootstrap, Estimate
from vitarium.studies.statistics.population import Stage

_SMALL = 0.02
"""A gain of accuracy up to which one calls it small."""
HOLDS, FAILS, UNCLEAR = "holds here", "does not hold here", "not clear here"


@dataclass(frozen=True)
class Direction:
    """What others found, and what is found here."""

    published: str
    here: str
    verdict: str


class Telling:
    """What there is to say of the soups of a stage."""

    def __init__(
        self, stage: Stage, results: Results, walks: Walks, bootstrap: Bootstrap, split: str
    ) -> None:
        self.stage, self.results, self.walks = stage, results, walks
        self.bootstrap, self.split = bootstrap, split
        self.rate = next((f for f in stage.groups if f.name.rpartition(".")[2] == "lr"), None)
        """The factor of learning rates, if they differ."""

    def headlines(self) -> list[str]:
        """The few sentences that matter most."""
        return [
            *self._families(),
            *self._when(),
            *self._across(),
            *self._aligned(),
            *self._epochs(),
        ]

    def details(self) -> list[str]:
        return [*self._references(), *self._with_base(), *self._parts()]

    def directions(self) -> list[Direction]:
        """Published findings, each with the numbers here; those without numbers are left out."""
        found = [
            self._epochs_gain(),
            self._works_at_small_rates(),
            self._fails_at_large_rates(),
            self._fails_across(),
            self._reduces_the_barrier(),
        ]
        return [one for one in found if one]

    # Sentences

    def _families(self) -> list[str]:
        families = self.results.groups("family")
        said = []
        for method in (UNIFORM, GREEDY):
            best = compared(self.results, self.bootstrap, families, method)
            mean = compared(self.results, self.bootstrap, families, method, MEAN)
            if best and mean:
                said.append(
                    f"The {label(method)} of one parent's children differs from the best of them "
                    f"by validation by {self._points(best.of_images)}, and is better in "
                    f"{best.better} of {counted(best.groups, 'group')}; from their mean by "
                    f"{self._points(mean.of_images)}. Intervals over {self.split} images."
                )
        return said

    def _when(self) -> list[str]:
        """What may be averaged, by pairs of models."""
        levels = self.walks.by_kinship() + self._rates()
        few = [level for level in levels if level.gain.low is None]
        bad = [level for level in levels if level.gain.is_negative]
        rest = [level for level in levels if level not in few and level not in bad]
        safe = [level for level in rest if level.gain.value >= 0]
        rest = [level for level in rest if level not in safe]
        said = []
        for some, verdict in (
            (safe, "**One may average** {}: the soup is at least as accurate as they are."),
            (rest, "**No clear loss or gain** of averaging {}."),
            (bad, "**Averaging costs accuracy** for {}."),
            (few, "Too few models for an interval: {}."),
        ):
            if some:
                said.append(verdict.format(listed([self._level(level) for level in some])))
        if said:
            said[0] += " Points: the mean of two models' weights against the mean of their "
            said[0] += "accuracies, with intervals over models."
        return said

    def _level(self, level: Level) -> str:
        of = "" if level.name.startswith("models") else "siblings with "
        return f"{of}{level.name} ({self._points(level.gain, inside=True)})"

    def _across(self) -> list[str]:
        groups = self.results.groups("across")
        found = compared(self.results, self.bootstrap, groups, UNIFORM, MEAN)
        if not found:
            return []
        return [
            "The uniform soup of the best model of each parent differs from their mean by "
            f"{self._points(found.of_images)}. Interval over {self.split} images."
        ]

    def _aligned(self) -> list[str]:
        said = []
        for one in self.walks.strangers_aligned():
            share = share_with_interval(one.share, level=self.bootstrap.level)
            way = "takes away" if one.reduction.is_positive else "does not clearly lower:"
            said.append(
                f"Between models of different parents, {label(one.align)} {way} {share} of the "
                f"barrier, from {one.before.value:.2f} to {self._nats(one.after)} nats over "
                f"{counted(one.pairs, 'pair')}; the aligned soup of two differs from their mean "
                f"accuracy by {self._points(one.gain)}."
            )
        return said

    def _epochs(self) -> list[str]:
        if not (best := self._best_epochs()):
            return []
        gains = np.asarray([one.gain for one in best])
        of_models = self.bootstrap.mean(gains)
        return [
            f"Averaging a model's last {best[0].last} epochs ({label(best[0].method)}) gains "
            f"{self._points(of_models)} on average over {counted(len(best), 'model')} (interval "
            f"over models); {int((gains > 0).sum())} gain, {int((gains < 0).sum())} lose."
        ]

    def _references(self) -> list[str]:
        families = self.results.groups("family")
        found = compared(self.results, self.bootstrap, families, ENSEMBLE)
        if not found:
            return []
        return [
            f"As a reference, the ensemble of a group's models (their mean logits, as many times "
            f"the cost) differs from the best single model by {self._points(found.of_images)}."
        ]

    def _with_base(self) -> list[str]:
        """All other methods, the best first."""
        families = self.results.groups("family")
        names = dict.fromkeys((r.method, r.align) for g in families for r in self.results.of(g))
        rest = [pair for pair in names if pair[0] not in (UNIFORM, GREEDY, MEAN, ENSEMBLE)]
        rest += [pair for pair in names if pair[1]]
        there: list[tuple[str, Compared]] = []
        for method, align in dict.fromkeys(rest):
            found = compared(self.results, self.bootstrap, families, method, align=align)
            if found and method != "best single":
                there.append((label(method, align), found))
        there.sort(key=lambda pair: -pair[1].of_images.value)
        if not there:
            return []
        each = [f"{name} {self._points(found.of_images, inside=True)}" for name, found in there]
        return [
            "Against the best single model, on average over up to "
            f"{counted(max(found.groups for _, found in there), 'group')}: {'; '.join(each)}."
        ]

    def _parts(self) -> list[str]:
        said = []
        for factor in self.stage.groups:
            levels = self.walks.of_siblings(factor) if factor.name in self._own else []
            alike = [level for level in levels if level.value != "different"]
            if len(alike) < 2:
                continue
            low, high = min(alike, key=_barrier), max(alike, key=_barrier)
            said.append(
                f"Siblings with {low.name} have the lowest barrier, {self._nats(low.barrier)} "
                f"nats; those with {high.name} the highest, {self._nats(high.barrier)} nats."
            )
        return said

    @property
    def _own(self) -> set[str]:
        return {f.name for f in self.stage.groups if not f.name.startswith("parent")}

    # Published directions

    def _epochs_gain(self) -> Direction | None:
        if not (best := self._best_epochs()):
            return None
        gains = np.asarray([one.gain for one in best])
        found = self.bootstrap.mean(gains)
        verdict = _verdict(found.is_positive, found.is_negative)
        if verdict == HOLDS and found.value > _SMALL:
            verdict = f"{HOLDS}, and it is not small"
        here = f"last {best[0].last} epochs: {self._points(found)}; "
        here += f"{int((gains > 0).sum())} of {len(gains)} models gain"
        return Direction("Averaging the last epochs gives a small, consistent gain.", here, verdict)

    def _works_at_small_rates(self) -> Direction | None:
        levels = self._rates()
        if levels:
            return self._works(levels[0], "at the smallest learning rate")
        kin = self.walks.by_kinship()
        siblings = [one for one in kin if one.value == self.walks.lines.kin[0].name]
        return self._works(siblings[0], "at any learning rate here") if siblings else None

    def _works(self, level: Level, when: str) -> Direction:
        found = level.gain
        here = f"{when}: {self._level(level)}, barrier {self._nats(level.barrier)} nats"
        works = found.low is not None and found.value >= 0
        verdict = _verdict(works, found.is_negative)
        return Direction(
            "Soups of one parent's children work at small learning rates.", here, verdict
        )

    def _fails_at_large_rates(self) -> Direction | None:
        levels = self._rates()
        if len(levels) < 2:
            return None
        small, large = levels[0], levels[-1]
        here = (
            f"barrier {self._nats(small.barrier)} nats with {small.name}, "
            f"{self._nats(large.barrier)} with {large.name}"
        )
        apart = _above(large.barrier, small.barrier)
        return Direction(
            "The larger the learning rate, the higher the barrier between siblings.",
            here,
            _verdict(apart, _above(small.barrier, large.barrier)),
        )

    def _fails_across(self) -> Direction | None:
        level = self.walks.of_strangers()
        if level is None:
            return None
        here = f"{self._level(level)}, barrier {self._nats(level.barrier)} nats"
        return Direction(
            "Soups across parents fail.",
            here,
            _verdict(level.gain.is_negative, level.gain.is_positive),
        )

    def _reduces_the_barrier(self) -> Direction | None:
        found = self.walks.strangers_aligned()
        if not found:
            return None
        best: Aligned = max(found, key=lambda one: one.reduction.value)
        here = (
            f"{label(best.align)}: from {self._nats(best.before)} to {self._nats(best.after)} nats "
            f"over {counted(best.pairs, 'pair')}"
        )
        left = best.after.is_positive
        verdict = _verdict(best.reduction.is_positive and left, best.reduction.is_negative)
        if best.reduction.is_positive and not left:
            verdict = f"{FAILS}: no barrier is clearly left"
        return Direction("Re-Basin reduces the barrier, and does not remove it.", here, verdict)

    def _rates(self) -> list[Level]:
        """Pairs of siblings with the same learning rate, the smallest rate first."""
        levels = self.walks.of_siblings(self.rate) if self.rate else []
        return [level for level in levels if level.value != "different"]

    def _best_epochs(self) -> list[EpochGain]:
        """Of as many epochs, and the operator, that are best by validation."""
        kinds: dict[tuple[str, int], list[EpochGain]] = {}
        for one in self.results.epochs:
            kinds.setdefault((one.method, one.last), []).append(one)
        return max(
            kinds.values(),
            key=lambda some: float(np.mean([one.averaged.val_accuracy for one in some])),
            default=[],
        )

    # Words

    def _points(self, estimate: Estimate, *, inside: bool = False) -> str:
        said = with_interval(
            estimate, "accuracy", level=self.bootstrap.level, points=True, inside=inside
        )
        return said.replace("**", "**+", 1) if estimate.value > 0 else said

    def _nats(self, estimate: Estimate) -> str:
        return with_interval(estimate, level=self.bootstrap.level)


def _barrier(level: Level) -> float:
    return level.barrier.value


def _above(one: Estimate, other: Estimate) -> bool:
    """Whether one interval lies above another."""
    return one.low is not None and other.high is not None and one.low > other.high


def _verdict(holds: bool, fails: bool) -> str:
    return HOLDS if holds else FAILS if fails else UNCLEAR
