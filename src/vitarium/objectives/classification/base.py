"""What all objectives that learn classes have in common: outputs, views, and scores."""

from collections.abc import Callable, Sequence
from typing import Any, TypedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitarium.data.batch import Batch
from vitarium.objectives.base import BatchesOfSplit, Evaluate


def evaluate(
    config: object, model: nn.Module, batches: BatchesOfSplit, splits: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Cross-entropy (nats, without smoothing) and top-1 accuracy over all images of each split."""
    scores = {}
    for split in splits:
        loss = correct = torch.zeros((), dtype=torch.float64)
        images = 0
        for batch in batches(split, None):
            outputs = model(batch.images).float()
            loss = loss + F.cross_entropy(outputs, batch.labels, reduction="sum").double().cpu()
            correct = correct + (outputs.argmax(1) == batch.labels).sum().cpu()
            images += len(batch.labels)
        scores[split] = {"loss": loss.item() / images, "accuracy": correct.item() / images}
    return scores


SCORES = ("loss", "accuracy")
"""What `evaluate` gives for a split."""


class ClassificationFacts(TypedDict):
    """Facts of an objective that learns classes."""

    views: int
    outputs: Callable[[Any, int], int]
    evaluate: Evaluate
    scores: tuple[str, ...]


CLASSIFICATION: ClassificationFacts = {
    "views": 1,
    "outputs": lambda config, num_classes: num_classes,
    "evaluate": evaluate,
    "scores": SCORES,
}
"""Facts for `@objective(name, config=..., **CLASSIFICATION)`."""


def accuracy(outputs: Tensor, batch: Batch) -> Tensor:
    """Share of outputs [batch, num_classes] that are largest where the targets are: a scalar."""
    return (outputs.argmax(1) == batch.targets.argmax(1)).float().mean()
