"""Soft distillation: divergence from a teacher's probabilities."""

from pydantic import Field, PositiveFloat
from torch import nn
from torch.nn import functional as F

from vitarium.core.devices import without_autocast
from vitarium.data.batch import Batch
from vitarium.objectives.base import Loss, objective
from vitarium.objectives.classification.base import accuracy
from vitarium.objectives.distillation.base import (
    DISTILLATION,
    Distillation,
    at_least_float32,
    teacher_output,
)


class SoftDistillation(Distillation):
    """(1 - alpha) cross-entropy with the classes + alpha T^2 KL(teacher || student)."""

    alpha: float = Field(0.5, ge=0, le=1)
    """Weight of the teacher's term, from 0 to 1; at 1 the true classes do not count."""
    temperature: PositiveFloat = 1.0
    """Temperature of the softmax: logits of student and teacher are divided by it."""


@objective("soft_distillation", paper="Hinton et al. 2015, arXiv 1503.02531", **DISTILLATION)
def soft_distillation(config: SoftDistillation, model: nn.Module, batch: Batch) -> Loss:
    """Knowledge distillation: cross-entropy with the classes, and KL divergence from a teacher.

    Outputs [batch, num_classes] against targets and the teacher's outputs of that shape. The
    teacher's term is the Kullback-Leibler divergence at temperature T, not the cross-entropy of the
    same gradient: it is 0 where both agree. T^2 keeps the gradient's size when T changes (Sec. 2).
    """
    outputs = model(batch.images)
    class_loss = F.cross_entropy(outputs, batch.targets)
    with without_autocast(outputs):
        log_q, log_p = (
            (at_least_float32(logits) / config.temperature).log_softmax(dim=1)
            for logits in (outputs, teacher_output(batch))
        )
        # vmap has no rule of its own for F.kl_div
        divergence = (log_p.exp() * (log_p - log_q)).sum(dim=1).mean()
    prediction = config.temperature**2 * divergence
    loss = (1 - config.alpha) * class_loss + config.alpha * prediction
    return Loss(loss, prediction=prediction, accuracy=accuracy(outputs, batch))
