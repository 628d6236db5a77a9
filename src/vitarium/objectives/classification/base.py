"""What all objectives that learn classes have in common: outputs, views, and scores."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from vitarium.data.batch import Batch


def evaluate(
    config: object,
    model: nn.Module,
    score: Callable[[str, int | None], Iterator[Batch]],
    splits: Sequence[str],
) -> dict[str, dict[str, float]]:
    """Cross-entropy (nats, without smoothing) and top-1 accuracy over all images of each split."""
    return {split: _scores(model, score(split, None)) for split in splits}


CLASSIFICATION: dict[str, Any] = {
    "views": 1,
    "outputs": lambda config, num_classes: num_classes,
    "evaluate": evaluate,
}
"""Facts for `@objective(name, config=..., **CLASSIFICATION)`."""


def _scores(model: nn.Module, batches: Iterator[Batch]) -> dict[str, float]:
    loss = correct = torch.zeros((), dtype=torch.float64)
    images = 0
    for batch in batches:
        outputs = model(batch.images).float()
        loss = loss + F.cross_entropy(outputs, batch.labels, reduction="sum").double().cpu()
        correct = correct + (outputs.argmax(1) == batch.labels).sum().cpu()
        images += len(batch.labels)
    return {"loss": loss.item() / images, "accuracy": correct.item() / images}
