"""Hard distillation: cross-entropy with the class that a teacher predicts."""

from pydantic import Field
from torch import nn
from torch.nn import functional as F

from vitarium.data.batch import Batch
from vitarium.objectives.base import Loss, objective
from vitarium.objectives.classification.base import accuracy
from vitarium.objectives.distillation.base import DISTILLATION, Distillation, teacher_output


class HardDistillation(Distillation):
    """(1 - alpha) cross-entropy with the classes + alpha cross-entropy with the teacher's class."""

    alpha: float = Field(0.5, ge=0, le=1)
    """Weight of the teacher's term, from 0 to 1; the true classes have 1 - alpha."""


@objective("hard_distillation", paper="Touvron et al. 2021, arXiv 2012.12877", **DISTILLATION)
def hard_distillation(config: HardDistillation, model: nn.Module, batch: Batch) -> Loss:
    """Hard distillation: cross-entropy with the true classes and the teacher's predicted ones.

    Outputs [batch, num_classes] against targets and the largest of the teacher's outputs (DeiT,
    Sec. 4), for a model with one head: no distillation token.
    """
    outputs = model(batch.images)
    class_loss = F.cross_entropy(outputs, batch.targets)
    prediction = F.cross_entropy(outputs, teacher_output(batch).argmax(1))
    loss = (1 - config.alpha) * class_loss + config.alpha * prediction
    return Loss(loss, prediction=prediction, accuracy=accuracy(outputs, batch))
