"""Logit matching: mean squared difference between the logits of student and teacher."""

from torch import nn

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


class LogitMse(Distillation):
    """Mean squared difference from the teacher's logits; the true classes do not count."""


@objective("logit_mse", paper="Ba & Caruana 2014, arXiv 1312.6184", **DISTILLATION)
def logit_mse(config: LogitMse, model: nn.Module, batch: Batch) -> Loss:
    """Logit matching: mean squared difference between the logits of student and teacher.

    Outputs [batch, num_classes] against the teacher's of that shape, as a mean over all entries.
    Unlike KL divergence at any temperature it also fits the mean of an image's logits, which no
    probability depends on.
    """
    outputs = model(batch.images)
    with without_autocast(outputs):
        difference = at_least_float32(outputs) - at_least_float32(teacher_output(batch))
        loss = difference.square().mean()
    return Loss(loss, accuracy=accuracy(outputs, batch))
