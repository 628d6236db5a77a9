"""Training runs, from specs to their last checkpoints: one model, or several stacked.

After every epoch all that a later start needs is on disk. Since every random stream is named
after the epoch and the step that draw from it, a resumed run gives the bits of an unbroken one.
"""

import os
import socket
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import isfinite
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn

from vitarium.blueprint import ModelSpec
from vitarium.core import seeds
from vitarium.core.errors import InvalidInput
from vitarium.core.memory import keep_freed_memory
from vitarium.core.registry import Section
from vitarium.data.expected import Normalization
from vitarium.data.loader import stacked_batches
from vitarium.training._async_writer import AsyncWriter
from vitarium.training._companions import ParentCompanions
from vitarium.training._evaluation_images import begun_sets
from vitarium.training._stack_key import stack_key, why_not_stacked
from vitarium.training.options import EpochEnded, Report, Spent, Stepped, TrainOptions, numerics
from vitarium.training.resume import checkpoint_of, copied, epoch_content, rounded
from vitarium.training.stacked_trainer import StackedTrainer
from vitarium.training.train_state import TrainState
from vitarium.training.trainer import Trainer
from vitarium.zoo import ModelFolder

Outcome = Literal["finished", "diverged"]


class Task(NamedTuple):
    """A model to train.

    folder: where it is kept; whatever is finished in it stays as it is.
    parent: weights to start from, by name; its head is used where the spec keeps it.
    teacher: whom an objective with a teacher asks, e.g. `zoo.load(ID)`; tasks may share one.
    parent_architecture: of the parent, where it is known: positions of patches that lie in a
        rectangle are resampled by it.
    teacher_normalization: mean and std of the teacher's images, per channel; None: the student's.
    parent_companions: of the parent, where the objective goes on with them.
    """

    spec: ModelSpec
    folder: ModelFolder
    parent: Mapping[str, Tensor] | None = None
    teacher: nn.Module | None = None
    parent_architecture: Section | None = None
    teacher_normalization: Normalization | None = None
    parent_companions: ParentCompanions | None = None


def train(
    spec: ModelSpec,
    folder: ModelFolder,
    *,
    parent: Mapping[str, Tensor] | None = None,
    teacher: nn.Module | None = None,
    parent_architecture: Section | None = None,
    teacher_normalization: Normalization | None = None,
    parent_companions: ParentCompanions | None = None,
    options: TrainOptions | None = None,
    report: Report = lambda event: None,
) -> Outcome:
    """Train a model into its folder, going on after its last finished epoch.

    Args:
        parent, teacher, parent_architecture, teacher_normalization, parent_companions: as of Task.
        report: called after every step and every epoch.

    Returns "finished" or "diverged" (loss or weights not finite; the checkpoint of the last finite
    epoch is kept). Raises IncompatibleWeights, DataNotFound, InvalidData, InvalidInput (no teacher,
    or one that does not go with the model) and CorruptFile.
    """
    beside = (teacher, parent_architecture, teacher_normalization, parent_companions)
    task = Task(spec, folder, parent, *beside)
    return train_together([task], options=options, report=report)[spec.id]


def train_together(
    tasks: Sequence[Task],
    *,
    options: TrainOptions | None = None,
    report: Report = lambda event: None,
) -> dict[str, Outcome]:
    """Train models as one stacked computation; each as if it were trained by itself.

    They have to have the same `stack_key`. Float32 losses agree with those of a model that is
    trained by itself to about 1e-5 relative over tens of steps; bits differ, since sums are taken
    in another order. On CPUs the bits do not depend on who else is in the stack, so a stack that
    was stopped goes on to the same bits in any company. Models that were begun differently (other
    epochs finished, another precision) are trained one group after the other.

    Returns each model's outcome by id, and raises, as `train` does; InvalidInput, too, for a model
    that has no `stack_key` where there are several, or the options ask for a stack.
    """
    options = options or TrainOptions()
    options = replace(options, stacked=options.stacked or len(tasks) > 1)
    for task in tasks:
        if options.stacked and stack_key(task.spec) is None:
            recipe = task.spec.recipe
            reason = why_not_stacked(recipe.architecture, recipe.adaptation)
            what = f"model {task.spec.id} cannot be trained in a stack"
            raise InvalidInput(f"{what}: {reason}" if reason else what)
    keep_freed_memory()
    outcomes: dict[str, Outcome] = {}
    groups: dict[tuple[TrainOptions, int, str], list[Task]] = defaultdict(list)
    for task in tasks:
        if result := task.folder.result():
            outcomes[task.spec.id] = result["status"]
            continue
        own_options, finished = _begun_options(task.folder, options), task.folder.epochs()
        company = task.spec.id
        if own_options.stacked:  # whose members are scored on the same images
            company = repr(begun_sets(task.spec.recipe, task.folder))
        groups[own_options, finished[-1].number if finished else -1, company].append(task)
    for own_options, last_epoch, company in sorted(groups, key=lambda key: (repr(key[0]), key[1])):
        if own_options.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
        with seeds.preserved(), numerics(own_options), AsyncWriter() as writing:
            group = groups[own_options, last_epoch, company]
            outcomes |= _TrainingRun(group, own_options, report, writing).to_the_end()
    return outcomes


def _begun_options(folder: ModelFolder, options: TrainOptions) -> TrainOptions:
    """The options, but for what an unfinished model was begun with."""
    if not folder.exists:
        return options
    software: Mapping[str, Any] = folder.about().software
    return replace(
        options,
        precision=software.get("precision", options.precision),
        compiled=software.get("compiled", str(options.compiled)) == "True",
        stacked=software.get("stacked", str(options.stacked)) == "True",
    )


class _TrainingRun:
    """Models that are at the same epoch."""

    def __init__(
        self, tasks: Sequence[Task], options: TrainOptions, report: Report, writing: AsyncWriter
    ) -> None:
        self.options, self.report, self.writing = options, report, writing
        self.worker = f"{socket.gethostname()} {os.getpid()}"
        started = time.time()
        self.members = [TrainState(t.spec, t.folder, t.parent, options, *t[3:]) for t in tasks]
        self.trainer = _trainer(self.members, options)
        self.outcomes: dict[str, Outcome] = {}
        self._spent("set-up", started)

    def to_the_end(self) -> dict[str, Outcome]:
        epoch = self._resume()
        while epoch < self.members[0].last_epoch:
            epoch += 1
            started, clock = time.time(), time.perf_counter()
            metrics, faults = self._train_epoch(epoch)
            seconds = time.perf_counter() - clock
            self._spent("train", started, epoch)
            if faults:
                self._drop(faults)
            if not self.members:
                return self.outcomes
            metrics = [metric for k, metric in enumerate(metrics) if k not in faults]
            scores = self._scores(epoch)
            for member, model_metrics, score in zip(self.members, metrics, scores, strict=True):
                images = member.batches.steps * member.recipe.batch_size
                # of one model, though others are trained beside
                rate = {"images_per_second": images / seconds} | member.tokens_seen(epoch)
                model_metrics |= score | {"seconds": time.perf_counter() - clock} | rate
            self._commit(epoch, metrics)
        self.writing.settle()
        for member in self.members:
            remarks = (member.stopped_early, member.collapse, member.remarks)
            self._finish(member, "finished", "; ".join(filter(None, remarks)))
        return self.outcomes

    def _resume(self) -> int:
        """Bring back the state after the last finished epoch, and return its number."""
        saved = [member.folder.progress() for member in self.members]
        if all(saved):
            self.trainer.restore([tensors for _, tensors in saved])  # type: ignore[misc]
            return saved[0][0]  # type: ignore[index]
        finished = self.members[0].folder.epochs()
        if finished and finished[-1].number == self.members[0].last_epoch:
            return finished[-1].number  # stopped between its last epoch and its result
        self._commit(0, self._scores(0))
        return 0

    def _train_epoch(self, epoch: int) -> tuple[list[dict[str, float]], dict[int, str]]:
        """Metrics of each member, and what went wrong with those that diverged."""
        self.trainer.training_mode()
        steps = self.members[0].batches.steps
        sums: dict[str, Tensor] = {}
        faults: dict[int, str] = {}
        batches = [member.images.of_epoch(epoch) for member in self.members]
        for number, batch in enumerate(stacked_batches(batches, epoch)):
            for name, value in self.trainer.step(batch, epoch, number).items():
                sums[name] = sums.get(name, 0) + value
            # asking a GPU for a number makes it wait, so there only now and then
            interval = 1 if sums["loss"].device.type == "cpu" else 50
            if number % interval == 0 or number == steps - 1:
                for k, total in enumerate(sums["loss"].tolist()):
                    if not isfinite(total) and k not in faults:
                        faults[k] = f"the loss was {total} in epoch {epoch}, by step {number + 1}"
                if len(faults) == len(self.members):
                    return [{} for _ in self.members], faults
            self.writing.settle(wait=False)
            for member in self.members:
                self.report(Stepped(member.spec.id, epoch, number + 1, steps))
        faults = self.trainer.faults(epoch) | faults
        means = {name: (value / steps).tolist() for name, value in sums.items()}
        return [
            {f"train_{name}": values[k] for name, values in means.items()}
            | {"epoch_lr": member.rate(epoch, steps - 1)}
            for k, member in enumerate(self.members)
        ], faults

    def _scores(self, epoch: int) -> list[dict[str, float]]:
        started = time.time()
        scores = self.trainer.scores(epoch)
        self._spent("score", started, epoch)
        return scores

    def _commit(self, epoch: int, metrics: Sequence[dict[str, float]]) -> None:
        """Let the epoch be written, after the one before it."""
        self.writing.settle()
        for member, model_metrics in zip(self.members, metrics, strict=True):
            if remark := member.add_metrics(model_metrics):
                self.report(remark)
        if self.members[0].stopped_early:
            metrics = self._with_all_scores(epoch, metrics)
        last = epoch == self.members[0].last_epoch
        states = self.trainer.progress()
        for member, model_metrics, state in zip(self.members, metrics, states, strict=True):
            recipe, keeps = member.recipe, member.keeps(epoch)
            content = epoch_content(state, recipe, member.frozen, is_last=last, keeps_weights=keeps)
            write = partial(_written, member.folder, epoch, model_metrics, *content)
            self.writing.submit(write, partial(self._committed, member, epoch, model_metrics))

    def _with_all_scores(
        self, epoch: int, metrics: Sequence[dict[str, float]]
    ) -> list[dict[str, float]]:
        """Metrics with the scores that only a last epoch has, which it became by its metrics."""
        first = self.members[0]
        if first.recipe.keeps(epoch) and not first.scored_at_the_end:
            return list(metrics)
        scores = self._scores(epoch)
        return [first | more for first, more in zip(metrics, scores, strict=True)]

    def _committed(
        self, member: TrainState, epoch: int, metrics: dict[str, float], times: tuple[float, float]
    ) -> None:
        self.report(Spent(member.spec.id, self.worker, "write", *times, epoch))
        self.report(EpochEnded(member.spec.id, epoch, metrics))

    def _drop(self, faults: Mapping[int, str]) -> None:
        """End the models that diverged; the others go on."""
        self.writing.settle()
        states = self.trainer.progress()
        for k, fault in faults.items():
            member = self.members[k]
            last, progress = member.folder.epochs()[-1], member.folder.progress()
            if last.checkpoint is None and progress:  # kept, though the recipe may not keep it
                weights = checkpoint_of(progress[1], member.recipe)
                member.folder.keep(last.number, rounded(weights, member.recipe, member.frozen))
            self._finish(member, "diverged", fault)
        alive = [k for k in range(len(self.members)) if k not in faults]
        self.members = [self.members[k] for k in alive]
        if alive:
            self.trainer = _trainer(self.members, self.options)
            self.trainer.restore([copied(states[k]) for k in alive])

    def _finish(self, member: TrainState, outcome: Outcome, message: str) -> None:
        member.folder.finish(outcome, message)
        self.outcomes[member.spec.id] = outcome

    def _spent(self, what: str, started: float, epoch: int | None = None) -> None:
        self.report(Spent(self.members[0].spec.id, self.worker, what, started, time.time(), epoch))


def _trainer(members: Sequence[TrainState], options: TrainOptions) -> Trainer | StackedTrainer:
    return StackedTrainer(members, options) if options.stacked else Trainer(members, options)


def _written(folder: ModelFolder, *epoch: Any) -> tuple[float, float]:
    started = time.time()
    folder.commit(*epoch)
    return started, time.time()
