"""How long the rest of a plan will take, from the epochs and steps that were measured so far."""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable
from statistics import fmean

from vitarium.blueprint import ModelSpec, Plan
from vitarium.engine.events import Ended, EpochEnded, Event, Retried, Started, Stepped


class Remaining:
    """A listener that estimates the time left, with `at_a_time` models trained at a time.

    `expected`: seconds of an epoch before one was measured; None where nothing is known.
    """

    def __init__(
        self,
        plan: Plan,
        existing: Iterable[str],
        at_a_time: int,
        expected: Callable[[ModelSpec], float | None] = lambda spec: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.plan, self.at_a_time, self.expected = plan, max(at_a_time, 1), expected
        self._clock = clock
        self._running: set[str] = set()
        self._kinds: dict[str, int] = {}
        """Models of one number have epochs that take about as long."""
        self._examples: dict[int, ModelSpec] = {}
        self._left: dict[str, float] = {}
        """Epochs of the models that were begun and have not ended."""
        self._waiting: Counter[tuple[int, int]] = Counter()
        """How many models were not begun, by kind and number of epochs: plans have thousands."""
        self._number_kinds(set(existing))
        self._since: dict[str, tuple[Stepped, float]] = {}
        """The first step that was reported of each running epoch, and when."""
        self._stepped: dict[int, float] = {}
        """Seconds of an epoch, by the steps of one that is under way."""
        self._measured: dict[int, list[float]] = defaultdict(list)
        self._guessed: dict[int, float | None] = {}

    def expect(self, expected: Callable[[ModelSpec], float | None]) -> None:
        """From now on `expected` says how many seconds an epoch takes that was not measured."""
        self.expected = expected
        self._guessed.clear()

    def _number_kinds(self, existing: set[str]) -> None:
        numbers: dict[Hashable, int] = {}
        for spec in self.plan.models:
            if spec.id not in existing:
                kind = numbers.setdefault(_kind(spec), len(numbers))
                self._kinds[spec.id] = kind
                self._examples.setdefault(kind, spec)
                self._waiting[kind, spec.recipe.epochs] += 1

    def __call__(self, event: Event) -> None:
        match event:
            case Started():
                self._running.add(event.model)
                # a stack's epoch takes all of its models the same time, at the same time
                self.at_a_time = max(self.at_a_time, len(self._running))
            case Stepped() if event.model in self._kinds:
                now = self._clock()
                self._advance(event.model, event.epoch - 1 + event.step / event.steps)
                first, then = self._since.setdefault(event.model, (event, now))
                if first.epoch != event.epoch:
                    self._since[event.model] = (event, now)
                elif event.step > first.step:
                    per_step = (now - then) / (event.step - first.step)
                    self._stepped[self._kinds[event.model]] = per_step * event.steps
            case EpochEnded() if event.model in self._kinds:
                self._advance(event.model, event.epoch)
                if "seconds" in event.metrics:
                    self._measured[self._kinds[event.model]].append(event.metrics["seconds"])
            case Retried():
                self._running.discard(event.model)
            case Ended() if event.model in self._kinds:
                self._running.discard(event.model)
                self._advance(event.model, 0)
                del self._left[event.model], self._kinds[event.model]

    def _advance(self, model: str, epochs: float) -> None:
        total = self.plan[model].recipe.epochs
        if model not in self._left:
            self._waiting[self._kinds[model], total] -= 1
        self._left[model] = total - epochs

    def seconds(self) -> float | None:
        """Time left; None while nothing is known of some model.

        All work shared out evenly, but never less than what the longest model takes.
        """
        work = [(self._kinds[model], epochs, 1) for model, epochs in self._left.items()]
        work += [(kind, float(n), count) for (kind, n), count in self._waiting.items() if count]
        rates = {kind: self._rate(kind) for kind in {kind for kind, _, _ in work}}
        if None in rates.values():
            return None
        each = [((rates[kind] or 0.0) * epochs, count) for kind, epochs, count in work]
        total = sum(seconds * count for seconds, count in each)
        return max(total / self.at_a_time, max((seconds for seconds, _ in each), default=0.0))

    def _rate(self, kind: int) -> float | None:
        """Seconds per epoch: measured, or by its steps; else expected, as others came true."""
        if kind in self._measured:
            return fmean(self._measured[kind][-20:])
        if kind in self._stepped:
            return self._stepped[kind]
        if kind not in self._guessed:
            self._guessed[kind] = self.expected(self._examples[kind])
        if (guess := self._guessed[kind]) is None:
            return None
        ratios = [
            fmean(seconds) / guessed
            for measured_kind, seconds in self._measured.items()
            if (guessed := self._guessed.get(measured_kind))
        ]
        return guess * (fmean(ratios) if ratios else 1.0)


def _kind(spec: ModelSpec) -> Hashable:
    """Models whose epochs take about as long."""
    recipe = spec.recipe
    parts = (recipe.architecture, recipe.objective, recipe.data, recipe.augmentation)
    return (*parts, recipe.batch_size, recipe.adaptation)
