"""Supervised training: cross-entropy with the classes."""

from pydantic import Field
from torch import nn
from torch.nn import functional as F

from vitarium.core.config import Config
from vitarium.data.batch import Batch
from vitarium.objectives.base import Loss, objective
from vitarium.objectives.classification.base import CLASSIFICATION, accuracy


class Supervised(Config):
    """Cross-entropy with the classes, which mixup and cutmix may have mixed."""

    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of each target's probability that is spread evenly over all classes, in [0, 1)."""


@objective("supervised", **CLASSIFICATION)
def supervised(config: Supervised, model: nn.Module, batch: Batch) -> Loss:
    """Supervised classification: cross-entropy with the classes, with optional label smoothing.

    Outputs [batch, num_classes] against soft targets of that shape.

    Smoothing the mixed targets is the same as mixing smoothed ones: both are linear.
    """
    outputs = model(batch.images)
    loss = F.cross_entropy(outputs, batch.targets, label_smoothing=config.label_smoothing)
    return Loss(loss, accuracy=accuracy(outputs, batch))
