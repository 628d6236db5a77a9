"""How long the rest of a plan will take, from the epochs and steps that were measured so far."""

import time
from collections import defaultdict
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
        there, models = set(existing), plan.models
        self._left: dict[str, float] = {m.id: m.recipe.epochs for m in models if m.id not in there}
        self._since: dict[str, tuple[Stepped, float]] = {}
        """The first step that was reported of each running epoch, and when."""
        self._stepped: dict[Hashable, float] = {}
        """Seconds of an epoch, by the steps of one that is under way."""
        self._measured: dict[Hashable, list[float]] = defaultdict(list)
        self._guessed: dict[Hashable, float | None] = {}

    def __call__(self, event: Event) -> None:
        match event:
            case Started():
                self._running.add(event.model)
                # a stack's epoch takes all of its models the same time, at the same time
                self.at_a_time = max(self.at_a_time, len(self._running))
            case Stepped() if event.model in self._left:
                spec, now = self.plan[event.model], self._clock()
                done = event.epoch - 1 + event.step / event.steps
                self._left[event.model] = spec.recipe.epochs - done
                first, then = self._since.setdefault(event.model, (event, now))
                if first.epoch != event.epoch:
                    self._since[event.model] = (event, now)
                elif event.step > first.step:
                    per_step = (now - then) / (event.step - first.step)
                    self._stepped[_kind(spec)] = per_step * event.steps
            case EpochEnded() if event.model in self._left:
                spec = self.plan[event.model]
                self._left[event.model] = spec.recipe.epochs - event.epoch
                if "seconds" in event.metrics:
                    self._measured[_kind(spec)].append(event.metrics["seconds"])
            case Retried():
                self._running.discard(event.model)
            case Ended():
                self._running.discard(event.model)
                self._left.pop(event.model, None)

    def seconds(self) -> float | None:
        """Time left; None while nothing is known of some model.

        All work shared out evenly, but never less than what the longest model takes.
        """
        work = [(epochs, self._rate(self.plan[id])) for id, epochs in self._left.items()]
        estimates = [epochs * rate for epochs, rate in work if rate is not None]
        if len(estimates) < len(work):
            return None
        return max(sum(estimates) / self.at_a_time, max(estimates, default=0.0))

    def _rate(self, spec: ModelSpec) -> float | None:
        """Seconds per epoch: measured, or by its steps; else expected, as others came true."""
        kind = _kind(spec)
        if kind in self._measured:
            return fmean(self._measured[kind][-20:])
        if kind in self._stepped:
            return self._stepped[kind]
        if kind not in self._guessed:
            self._guessed[kind] = self.expected(spec)
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
    return (*parts, recipe.batch_size, recipe.trainable)
