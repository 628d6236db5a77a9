"""How long the rest of a plan will take, from the epochs and steps that were measured so far."""

import time
from collections.abc import Callable, Hashable, Iterable
from statistics import fmean

from vitarium.blueprint import ModelSpec, Plan
from vitarium.engine.events import Ended, EpochEnded, Event, Retried, Started, Stepped


class Remaining:
    """A listener that estimates the time left.

    Args:
        existing: ids of models that are done.
        at_a_time: how many models are trained at a time.
        expected: seconds of an epoch before one was measured; None where nothing is known.
        clock: seconds by which steps are measured.
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
        done = set(existing)
        self._running: set[str] = set()
        self._left: dict[str, float] = {
            m.id: m.recipe.epochs for m in plan.models if m.id not in done
        }
        self._since: dict[str, tuple[Stepped, float]] = {}
        """The first step that was reported of each running epoch, and when."""
        self._stepped: dict[Hashable, float] = {}
        """Seconds of an epoch, by the steps of one that is under way."""
        self._measured: dict[Hashable, list[float]] = {}
        self._guessed: dict[Hashable, float | None] = {}

    def __call__(self, event: Event) -> None:
        match event:
            case Started():
                self._running.add(event.model)
                # a stack's epoch takes all of its models the same time, at the same time
                self.at_a_time = max(self.at_a_time, len(self._running))
            case Stepped() if event.model in self._left:
                self._step(event)
            case EpochEnded() if event.model in self._left:
                spec = self.plan[event.model]
                self._left[event.model] = spec.recipe.epochs - event.epoch
                if "seconds" in event.metrics:
                    self._measured.setdefault(_kind(spec), []).append(event.metrics["seconds"])
            case Retried():
                self._running.discard(event.model)
            case Ended():
                self._running.discard(event.model)
                self._left.pop(event.model, None)

    def _step(self, event: Stepped) -> None:
        spec, now = self.plan[event.model], self._clock()
        self._left[event.model] = spec.recipe.epochs - event.epoch + 1 - event.step / event.steps
        first, then = self._since.setdefault(event.model, (event, now))
        if first.epoch != event.epoch:
            self._since[event.model] = (event, now)
        elif event.step > first.step:
            self._stepped[_kind(spec)] = (now - then) / (event.step - first.step) * event.steps

    def seconds(self) -> float | None:
        """Time left; None while nothing is known of some model.

        All work shared out evenly, but never less than what the longest model takes.
        """
        work = [
            epochs * rate if (rate := self._rate(self.plan[id])) is not None else None
            for id, epochs in self._left.items()
        ]
        estimates = [seconds for seconds in work if seconds is not None]
        if len(estimates) < len(work):
            return None
        return max(sum(estimates) / self.at_a_time, max(estimates, default=0.0))

    def _rate(self, spec: ModelSpec) -> float | None:
        """Seconds per epoch: measured, or by its steps; else expected, as far as expectations came
        true so far."""
        kind = _kind(spec)
        if kind in self._measured:
            return fmean(self._measured[kind][-20:])
        if kind in self._stepped:
            return self._stepped[kind]
        guess = self._guess(spec)
        if guess is None:
            return None
        ratios = [
            fmean(seconds) / guessed
            for measured_kind, seconds in self._measured.items()
            if (guessed := self._guessed.get(measured_kind))
        ]
        return guess * (fmean(ratios) if ratios else 1.0)

    def _guess(self, spec: ModelSpec) -> float | None:
        kind = _kind(spec)
        if kind not in self._guessed:
            self._guessed[kind] = self.expected(spec)
        return self._guessed[kind]


def _kind(spec: ModelSpec) -> Hashable:
    """Models whose epochs take about as long."""
    recipe = spec.recipe
    parts = (recipe.architecture, recipe.objective, recipe.data, recipe.augmentation)
    return (*parts, recipe.batch_size, recipe.trainable)
