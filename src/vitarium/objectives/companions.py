"""What an objective brings beside the model: modules that learn with it, and state that follows it.

A masked autoencoder brings its decoder, self-distillation a projection head, a momentum teacher and
the teacher's center. One module holds all of it: trainers optimize, update, save and restore it in
one place, and it is no part of the model's checkpoint.
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from math import cos, pi
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@dataclass(frozen=True)
class Progress:
    """How far a training is at one of its steps.

    epoch: from 1 to `epochs`.
    step: of all steps of the training, from 0 to `steps` - 1.
    """

    epoch: int
    epochs: int
    step: int
    steps: int

    @property
    def is_last_of_epoch(self) -> bool:
        return (self.step + 1) % (self.steps // self.epochs) == 0


class Companions(nn.Module):
    """Modules that learn with a model, and state that follows it.

    Parameters that require gradients are trained by the model's optimizer. All other parameters and
    the buffers are state: `before_step` and `after_step` change it in place, and nothing else does.
    Both are part of what an interrupted training goes on from. Neither contains the model.
    """

    def before_training(self, class_counts: Tensor) -> None:
        """Set what depends on the data; called once, on the companions' device.

        class_counts: training images of each class, int64 [num_classes]. Raises InvalidInput.
        """

    def before_step(self, progress: Progress) -> None:
        """Set what depends on how far the training is, e.g. a teacher's temperature."""

    def after_step(
        self, model: nn.Module, statistics: Mapping[str, Tensor], progress: Progress
    ) -> None:
        """Follow the model after a step of the optimizer; called without gradients.

        statistics: what the loss returned as `statistics`, [*shape] by name, mean over the parts in
            which the batch was computed.
        """


class MomentumTeacher(nn.Module):
    """A copy of a module whose parameters follow it as an exponential moving average.

    It gets no gradients. It drops nothing in training, neither units nor blocks; batch
    normalization takes the batch's statistics, as the student's does.
    """

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.module = deepcopy(student).requires_grad_(False)
        self.train()

    def forward(self, *inputs: Any) -> Any:
        with torch.no_grad():
            return self.module(*inputs)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for module in self.modules():
            if not isinstance(module, _BatchNorm):
                module.training = False
        return self

    @torch.no_grad()
    def follow(self, student: nn.Module, momentum: float) -> None:
        """teacher <- momentum * teacher + (1 - momentum) * student; buffers stay its own."""
        pairs = zip(self.module.parameters(), student.parameters(), strict=True)
        own, others = zip(*pairs, strict=True)
        torch._foreach_lerp_(list(own), [other.detach() for other in others], 1 - momentum)


class TeacherWithCompanions(nn.Module):
    """A teacher and what its own objective brought beside it, e.g. its decoder.

    Called as the teacher: images [batch, c, h, w] -> its outputs.
    """

    def __init__(self, model: nn.Module, companions: nn.Module) -> None:
        super().__init__()
        self.model, self.companions = model, companions

    def forward(self, images: Tensor) -> Any:
        return self.model(images)


def cosine(start: float, end: float, step: int, steps: int) -> float:
    """From `start` at step 0 to `end` at step `steps`, by half a period of a cosine."""
    return end + 0.5 * (start - end) * (1 + cos(pi * step / steps))
