"""Normalized knowledge distillation: target and non-target classes apart."""

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor, nn
from torch.nn import functional as F

from vitarium.core.devices import without_autocast
from vitarium.core.errors import InvalidInput
from vitarium.data.batch import Batch
from vitarium.objectives.base import Loss, objective
from vitarium.objectives.classification.base import accuracy
from vitarium.objectives.distillation.base import (
    DISTILLATION,
    Distillation,
    at_least_float32,
    teacher_output,
)


class Nkd(Distillation):
    """class_weight cross-entropy with the classes + target + gamma T^2 non_target."""

    gamma: NonNegativeFloat = 1.5
    """Weight of the non-target classes' term."""
    temperature: PositiveFloat = 1.0
    """Temperature of the softmax over the non-target classes."""
    class_weight: NonNegativeFloat = 0.0
    """Weight of the cross-entropy with the true classes, beside the teacher's terms."""


def _outputs(config: Nkd, num_classes: int) -> int:
    """As many as classes. Raises InvalidInput where there is no class beside the true one."""
    if num_classes < 2:
        raise InvalidInput("objective 'nkd' compares non-target classes: it needs two classes")
    return num_classes


@objective(
    "nkd", paper="Yang et al. 2023, arXiv 2303.13005", **(DISTILLATION | {"outputs": _outputs})
)
def nkd(config: Nkd, model: nn.Module, batch: Batch) -> Loss:
    """Normalized KD: a teacher's probability of the class, and those of the others by their sum.

    Outputs [batch, num_classes]; with p the teacher's and q the student's probabilities of the
    target class y (the largest of the targets, after mixup and cutmix), and N the softmax at
    temperature T over all classes but y: -p log q - gamma T^2 sum N(teacher) log N(student), mean
    over the batch.
    """
    outputs, teacher = model(batch.images), teacher_output(batch)
    loss = config.class_weight * F.cross_entropy(outputs, batch.targets)
    with without_autocast(outputs):
        student, teacher = at_least_float32(outputs), at_least_float32(teacher)
        classes = torch.arange(student.shape[1], device=student.device)
        is_target = batch.targets.argmax(1, keepdim=True) == classes
        of_target = (teacher.softmax(1) * student.log_softmax(1)).where(is_target, 0).sum(1)
        expected = _non_target(teacher / config.temperature, is_target).exp()
        predicted = _non_target(student / config.temperature, is_target)
        of_others = (expected * predicted).where(~is_target, 0).sum(1)
    target, non_target = -of_target.mean(), -(config.temperature**2) * of_others.mean()
    loss = loss + target + config.gamma * non_target
    return Loss(loss, target=target, non_target=non_target, accuracy=accuracy(outputs, batch))


def _non_target(logits: Tensor, is_target: Tensor) -> Tensor:
    """Log-softmax over the classes that are not the target, [batch, num_classes]; 0 at the
    target."""
    return logits.masked_fill(is_target, -torch.inf).log_softmax(1).masked_fill(is_target, 0)
