"""Learn the classes."""

from collections.abc import Callable, Iterator

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from vitarium.config import Config
from vitarium.data.batch import Batch
from vitarium.objectives.loss import Loss
from vitarium.registry import objective


class Supervised(Config):
    """Cross-entropy with the classes, which mixup and cutmix may have mixed."""

    label_smoothing: float = Field(0.0, ge=0, lt=1)


def evaluate(
    config: Supervised,
    model: nn.Module,
    score: Callable[[str, int | None], Iterator[Batch]],
    split: str,
) -> dict[str, float]:
    """Cross-entropy (nats, without smoothing) and top-1 accuracy over all images of a split."""
    loss = correct = torch.zeros((), dtype=torch.float64)
    images = 0
    for batch in score(split, None):
        outputs = model(batch.images).float()
        loss = loss + F.cross_entropy(outputs, batch.labels, reduction="sum").double().cpu()
        correct = correct + (outputs.argmax(1) == batch.labels).sum().cpu()
        images += len(batch.labels)
    return {"loss": loss.item() / images, "accuracy": correct.item() / images}


@objective(
    "supervised",
    config=Supervised,
    views=1,
    outputs=lambda config, num_classes: num_classes,
    evaluate=evaluate,
    metric="accuracy",
)
def supervised(config: Supervised, model: nn.Module, batch: Batch) -> Loss:
    """Soft-target cross-entropy; outputs [batch, num_classes] against targets of that shape.

    Smoothing the mixed targets is the same as mixing smoothed ones: both are linear.
    """
    outputs = model(batch.images)
    loss = F.cross_entropy(outputs, batch.targets, label_smoothing=config.label_smoothing)
    right = outputs.argmax(1) == batch.targets.argmax(1)
    return Loss(loss, accuracy=right.float().mean())
