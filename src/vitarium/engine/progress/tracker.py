"""Adds up the events of growing a zoo to a `GrowthStatus`."""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from vitarium.blueprint import Plan
from vitarium.core.printable import printable, shortened
from vitarium.engine.events import (
    Ended,
    EpochEnded,
    Event,
    Halved,
    Notice,
    Remarked,
    Retried,
    Spent,
    Started,
    Stepped,
)
from vitarium.engine.progress._training_rate import TrainingRate
from vitarium.zoo.growth_status import (
    MAX_LISTED,
    EndedModel,
    GrowthStatus,
    Note,
    Phase,
    Problem,
    StageStatus,
    TrainingModel,
)

_PROBLEMS, _SKIPPED, _RECENT, _NOTES = 50, 10, 12, 8
_MAX_TEXT = 2000


@dataclass
class _Training:
    """A model in training; fields as in TrainingModel, `about` its first three."""

    about: Mapping[str, str]
    worker: int
    since: float
    started: float
    process: str = ""
    phase: Phase = "set-up"
    epoch: int = 0
    step: int = 0
    steps: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)

    def enter(self, phase: Phase, now: float, epoch: int) -> None:
        if epoch != self.epoch:
            self.epoch, self.step = epoch, 0
        if phase != self.phase:
            self.phase, self.since = phase, now


class Tracker:
    """Knows how far a plan is.

    Args:
        existing: models that are in the zoo, trained to their end.
        diverged: those of them that diverged, with the reason.
        labels: each model in a few words, beginning with its stage and id.
        workers: models, or stacks of models, that are trained at a time.
        now: seconds since 1970, as in all methods.
    """

    def __init__(
        self,
        plan: Plan,
        existing: Iterable[str],
        diverged: Mapping[str, str],
        labels: Mapping[str, str],
        workers: int,
        now: float,
    ) -> None:
        self._plan, self._labels, self._workers, self._started = plan, labels, workers, now
        self._stages: dict[str, dict[str, Any]] = {}
        self._done: dict[str, float] = {}
        self._training: dict[str, _Training] = {}
        self._rate = TrainingRate(now)
        self._problems: deque[Problem] = deque(maxlen=_PROBLEMS)
        self._skipped: deque[Problem] = deque(maxlen=_SKIPPED)
        """Apart: one failed parent may have thousands of children."""
        self._recent: deque[EndedModel] = deque(maxlen=_RECENT)
        self._notes: deque[Note] = deque(maxlen=_NOTES)
        for spec in plan.models:
            empty = StageStatus(name=printable(spec.stage), models=0, epochs=0).model_dump()
            counts = self._stages.setdefault(spec.stage, empty)
            counts["models"] += 1
            counts["epochs"] += spec.recipe.epochs
        for model in existing:
            self._count(model, "diverged" if model in diverged else "existing")
            self._set_done(model, plan[model].recipe.epochs)
        for model, message in diverged.items():
            self._add_problem(model, "diverged", message, now)

    @property
    def is_complete(self) -> bool:
        """Whether no model failed or was skipped."""
        return not any(counts["failed"] or counts["skipped"] for counts in self._stages.values())

    def add(self, event: Event, now: float) -> None:
        """An event has happened."""
        match event:
            case Started(model, worker):
                self._training[model] = _Training(self._about(model), worker, now, now)
                self._workers = max(self._workers, worker + 1)
                self._count(model, "training")
            case Stepped(model, epoch, step, steps) if training := self._training.get(model):
                training.enter("train", now, epoch)
                training.step, training.steps = step, steps
                done, images = epoch - 1 + step / steps, steps * self._batch_size(model)
                self._rate.advance(model, done, images, epochs_before=epoch - 1)
                self._set_done(model, done)
            case EpochEnded() if training := self._training.get(event.model):
                training.metrics = event.metrics
                self._rate.advance(event.model, event.epoch, epochs_before=event.epoch - 1)
                self._set_done(event.model, max(event.epoch, self._done.get(event.model, 0.0)))
            case Spent() if training := self._training.get(event.model):
                self._follow(training.worker, event, now)
            case Retried(model, cause):
                self._add_problem(model, "retried", cause, now)
                self._leave(model)
                self._set_done(model, 0.0)
            case Ended():
                self._end(event, now)
            case Halved(models, cause):
                self._workers = min(self._workers, models)
                text = f"out of memory ({cause}); now at most {models} models at a time"
                self._notes.append(Note(text=_text(text), at=now))
            case Remarked(model, text):
                self._notes.append(Note(text=_text(f"{model}: {text}"), at=now))
            case Notice(text):
                self._notes.append(Note(text=_text(text), at=now))

    def status(self, now: float, **facts: Any) -> GrowthStatus:
        """As it is now; `facts` are the fields that no event says."""
        epochs, images = self._rate.per_second(now)
        listed = list(self._training.items())[:MAX_LISTED]
        return GrowthStatus(
            name=printable(self._plan.name),
            started=self._started,
            beat=now,
            epochs_per_second=epochs,
            images_per_second=images,
            workers=self._workers,
            stages=[StageStatus.model_validate(counts) for counts in self._stages.values()],
            in_training=len(self._training),
            training=[self._listed(model, training) for model, training in listed],
            problems=sorted([*self._problems, *self._skipped], key=lambda problem: problem.at),
            recent=list(self._recent),
            notes=list(self._notes),
            **facts,
        )

    def _listed(self, model: str, training: _Training) -> TrainingModel:
        return TrainingModel(
            **training.about,
            worker=training.worker,
            process=training.process,
            phase=training.phase,
            since=training.since,
            epoch=training.epoch,
            epochs=self._plan[model].recipe.epochs,
            step=training.step,
            steps=training.steps,
        )

    def _end(self, event: Ended, now: float) -> None:
        training = self._leave(event.model)
        self._count(event.model, event.status)
        self._set_done(event.model, self._plan[event.model].recipe.epochs)
        if event.status != "finished":
            self._add_problem(event.model, event.status, event.message, now)
        elif training:
            metrics = {name: x for name, x in training.metrics.items() if isfinite(x)}
            seconds = max(now - training.started, 0.0)
            ended = EndedModel(**training.about, at=now, seconds=seconds, metrics=metrics)
            self._recent.append(ended)

    def _follow(self, worker: int, event: Spent, now: float) -> None:
        """What a worker does next with its models; of a stack, Spent names the first alone."""
        for model, training in self._training.items():
            if training.worker != worker:
                continue
            training.process = printable(event.worker)
            if event.what == "train" and event.epoch is not None:
                training.enter("score", now, event.epoch)
            elif event.what == "score" and event.epoch is not None:
                last = self._plan[model].recipe.epochs
                if event.epoch >= last:
                    training.enter("write", now, last)
                else:
                    training.enter("train", now, event.epoch + 1)

    def _leave(self, model: str) -> _Training | None:
        training = self._training.pop(model, None)
        if training:
            self._count(model, "training", -1)
        self._rate.forget(model)
        return training

    def _count(self, model: str, outcome: str, change: int = 1) -> None:
        self._stages[self._plan[model].stage][outcome] += change

    def _set_done(self, model: str, epochs: float) -> None:
        counts = self._stages[self._plan[model].stage]
        counts["epochs_done"] += epochs - self._done.get(model, 0.0)
        self._done[model] = epochs

    def _add_problem(self, model: str, kind: str, message: str, now: float) -> None:
        about = {**self._about(model), "kind": kind, "message": _text(message), "at": now}
        problems = self._skipped if kind == "skipped" else self._problems
        problems.append(Problem.model_validate(about))

    def _about(self, model: str) -> dict[str, str]:
        stage = self._plan[model].stage
        label = self._labels[model].removeprefix(f"{stage} {model[:8]}").strip()
        return {"model": model, "stage": printable(stage), "label": _text(label)}

    def _batch_size(self, model: str) -> int:
        return self._plan[model].recipe.batch_size


def _text(text: str) -> str:
    return shortened(printable(text), _MAX_TEXT)
