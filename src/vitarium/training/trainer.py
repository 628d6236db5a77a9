"""Training steps of a single model."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vitarium.architectures.base import (
    ActsAfterSteps,
    FollowsEpochs,
    HasAuxiliaryLoss,
    SamplesSubnetworks,
)
from vitarium.core import seeds
from vitarium.data.batch import Batch
from vitarium.training._clipping import clipping
from vitarium.training._compile import compiled
from vitarium.training._drop_path import DropPathSchedule
from vitarium.training._moving_average import MovingAverage
from vitarium.training.base import RATE, PerturbsWeights
from vitarium.training.options import TrainOptions
from vitarium.training.parameter_groups import parameter_groups
from vitarium.training.resume import AVERAGE, restore_progress, take_progress, weights_of
from vitarium.training.train_state import TrainState


class Trainer:
    """A model with its optimizer; used as a StackedTrainer, which has several."""

    def __init__(self, members: Sequence[TrainState], options: TrainOptions) -> None:
        (self.member,) = members
        self.options = options
        self.model: Any = self.member.forward
        if options.compiled:
            self.model = compiled(self.model, dynamic=False)
        self.companions = self.member.companions
        self.clip = clipping(self.member.model, self.member.recipe, self.companions)
        modules = list(self.member.model.modules())
        self.acting = [m for m in modules if isinstance(m, ActsAfterSteps)]
        self.following = [m for m in modules if isinstance(m, FollowsEpochs)]
        self.sampling: list[SamplesSubnetworks] = [
            m for m in modules if isinstance(m, SamplesSubnetworks)
        ]
        self.adding: list[HasAuxiliaryLoss] = [
            m for m in modules if isinstance(m, HasAuxiliaryLoss)
        ]
        recipe = self.member.recipe
        self.drop_path = DropPathSchedule(self.member.model, recipe)
        self.average = MovingAverage(self.member.model, recipe.ema) if recipe.ema else None
        self.optimizer = self.member.recipe.optimizer(
            parameter_groups(self.member.model, self.member.recipe, self.companions)
        )
        self._beside = () if self.companions is None else (self.companions,)
        """What the objective is called with beside the model and a batch."""

    def step(self, batch: Batch, epoch: int, number: int) -> dict[str, Tensor]:
        """Train on a batch [1, ...]; returns the logged numbers [1]."""
        self._enter(epoch, number)
        parts = self._parts(self.member.completed(batch.of_model(0), epoch, number))
        self._sample(epoch, number, len(parts))
        seed = seeds.derive(self.member.recipe.seed, "dropout", epoch, number)
        metrics, statistics = self._backward(parts, seed)
        if isinstance(self.optimizer, PerturbsWeights):
            with self.optimizer.perturbed():
                self._backward(parts, seed)
        self.clip()
        self.optimizer.step()
        for module in self.acting:
            module.after_step()
        if self.companions is not None:
            with torch.no_grad():
                progress = self.member.progress(epoch, number)
                self.companions.after_step(self.member.model, statistics, progress)
        if self.average:
            self.average.update(self.member.step(epoch, number))
        return {name: value.unsqueeze(0) for name, value in metrics.items()}

    def _enter(self, epoch: int, number: int) -> None:
        """Set what depends on how far the training is, before a step."""
        rate = self.member.rate(epoch, number)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get(RATE, 1.0)
        self.drop_path.enter(self.member.share(epoch, number))
        for follower in self.following:
            follower.at_epoch(epoch)
        if self.companions is not None:
            self.companions.before_step(self.member.progress(epoch, number))

    def _sample(self, epoch: int, number: int, parts: int) -> None:
        """Let a model of sub-networks draw those of a step."""
        if self.sampling:
            seeds.reseed(seeds.derive(self.member.recipe.seed, "subnetworks", epoch, number))
        for sampler in self.sampling:
            sampler.sample(epoch, parts)

    def _parts(self, batch: Batch) -> list[Batch]:
        """What is computed at a time of a batch, with the teacher's outputs."""
        parts = batch.parts(self.member.recipe.accumulation)
        if (teacher := self.member.teacher) is None:
            return parts
        with self.options.autocast:
            return [replace(part, teacher_outputs=teacher(part)) for part in parts]

    def _backward(
        self, parts: Sequence[Batch], seed: int
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Leave the gradients of a batch in the weights; returns the logged numbers, scalars, and
        the loss's statistics, both as means over the batch."""
        seeds.reseed(seed)
        self.optimizer.zero_grad()
        means: dict[str, Tensor] = {}
        statistics: dict[str, Tensor] = {}
        count = sum(len(part.labels) for part in parts)
        for position, part in enumerate(parts):
            for sampler in self.sampling:
                sampler.select(position)
            with self.options.autocast:
                loss = self.member.recipe.objective(self.model, part, *self._beside)
            value, metrics, share = loss.value, loss.metrics, len(part.labels) / count
            for module in self.adding:
                auxiliary = module.auxiliary_loss(part.targets)
                value, metrics = value + auxiliary.value, {**metrics, **auxiliary.metrics}
            if (penalty := self.member.penalty()) is not None:
                value, metrics = value + penalty, {**metrics, "penalty": penalty.detach()}
            (value * share).backward()
            for name, metric in metrics.items():
                means[name] = means.get(name, 0) + metric * share
            for name, statistic in loss.statistics.items():
                statistics[name] = statistics.get(name, 0) + statistic * share
        return means, statistics

    def scores(self, epoch: int) -> list[dict[str, float]]:
        """Of the weights that are the checkpoint; of others, with their name inside the score's."""
        which = self.member.recipe.checkpoint_weights
        with self.options.autocast:
            trained = self.member.scores(epoch)
            if self.average is None:
                return [trained]
            with self.average.in_place():
                average = self.member.scores(epoch)
        if which == "ema":
            return [average | _renamed(trained, "trained")]
        return [trained | _renamed(average, "ema")]

    def progress(self) -> list[dict[str, Tensor]]:
        """The training state, [*shape] by name, as `training.resume` has it."""
        average = self.average.weights if self.average else {}
        averages = {AVERAGE + name: tensor for name, tensor in average.items()}
        return [take_progress(self.member.model, self.optimizer, self.companions) | averages]

    def restore(self, progress: Sequence[Mapping[str, Tensor]]) -> None:
        """Take up a training state, [*shape] by name."""
        restore_progress(self.member.model, self.optimizer, progress[0], self.companions)
        if self.average:
            self.average.restore(weights_of(progress[0], AVERAGE))

    def training_mode(self) -> None:
        self.member.training_mode()

    def faults(self, epoch: int) -> dict[int, str]:
        """Which members' weights are not finite, and where."""
        fault = self.member.fault(epoch)
        return {0: fault} if fault else {}


def _renamed(scores: Mapping[str, float], weights: str) -> dict[str, float]:
    """`val_accuracy` of other weights than the checkpoint's: `val_ema_accuracy`."""
    return {name.replace("_", f"_{weights}_", 1): score for name, score in scores.items()}
