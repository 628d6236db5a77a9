"""Supervised training: cross-entropy with the classes."""

from pydantic import Field, PositiveFloat
from torch import nn
from torch.nn import functional as F

from vitarium.core.config import Config
from vitarium.core.errors import InvalidInput
from vitarium.data.batch import Batch
from vitarium.objectives.base import Loss, objective
from vitarium.objectives.classification.base import SCORES, accuracy, evaluate


class Supervised(Config):
    """Cross-entropy with the classes, which mixup and cutmix may have mixed."""

    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of each target's probability that is spread evenly over all classes, in [0, 1)."""
    class_weights: tuple[PositiveFloat, ...] | None = None
    """Factor of the loss of each class, in the order of the data set's classes; None: 1. For
    classes of unequal size often images / (classes x images of the class)."""


def _outputs(config: Supervised, num_classes: int) -> int:
    """As many as classes. Raises InvalidInput where there are not as many weights."""
    weights = config.class_weights
    if weights and len(weights) != num_classes:
        what = f"class_weights has {len(weights)} numbers, and the data {num_classes} classes"
        raise InvalidInput(f"objective 'supervised': {what}")
    return num_classes


@objective("supervised", views=1, outputs=_outputs, evaluate=evaluate, scores=SCORES)
def supervised(config: Supervised, model: nn.Module, batch: Batch) -> Loss:
    """Supervised classification: cross-entropy with the classes, with optional label smoothing.

    Outputs [batch, num_classes] against soft targets of that shape.

    Smoothing the mixed targets is the same as mixing smoothed ones: both are linear.
    """
    outputs = model(batch.images)
    weights = outputs.new_tensor(config.class_weights) if config.class_weights else None
    loss = F.cross_entropy(outputs, batch.targets, weights, label_smoothing=config.label_smoothing)
    return Loss(loss, accuracy=accuracy(outputs, batch))
