"""What all objectives that learn classes have in common: outputs, views, and scores."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypedDict

import torch
from torch import nn
from torch.nn import functional as F

from vitarium.data.batch import Batch
from vitarium.objectives.base import BatchesOfSplit, Evaluate


def evaluate(
    config: object, model: nn.Module, batches: BatchesOfSplit, splits: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Cross-entropy (nats, without smoothing) and top-1 accuracy over all images of each split."""
    return {split: _scores(model, batches(split, None)) for split in splits}


class ClassificationFacts(TypedDict):
    """Facts of an objective that learns classes."""

    views: int
    outputs: Callable[[Any, int], int]
    evaluate: Evaluate


CLASSIFICATION: ClassificationFacts = {
    "views": 1,
    "outputs": lambda config, num_classes: num_classes,
    "evaluate": evaluate,
}
"""Facts for `@objective(name, config=..., **CLASSIFICATION)`."""


def _scores(model: nn.Module, batches: Iterator[Batch]) -> dict[str, float]:
    """Of outputs [batch, num_classes] against labels [batch]."""
    loss = correct = torch.zeros((), dtype=torch.float64)
    images = 0
    for batch in batches:
        outputs = model(batch.images).float()
        loss = loss + F.cross_entropy(outputs, batch.labels, reduction="sum").double().cpu()
        correct = correct + (outputs.argmax(1) == batch.labels).sum().cpu()
        images += len(batch.labels)
    return {"loss": loss.item() / images, "accuracy": correct.item() / images}
