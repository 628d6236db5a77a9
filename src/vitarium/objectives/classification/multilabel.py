"""Binary cross-entropy with each class: for images with several labels, or as AugReg trains."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitarium.core.config import Config
from vitarium.data.batch import Batch
from vitarium.objectives._average_precision import mean_average_precision
from vitarium.objectives.base import BatchesOfSplit, Loss, objective


class Multilabel(Config):
    """A sigmoid for each class; images of one label are trained with it, too.

    With thousands of classes start from outputs of about one label: `head: {name: linear,
    initial_bias: -6.9}` (AugReg on ImageNet-1k).
    """

    reduction: Literal["mean", "sum"] = "mean"
    """Mean or sum of the loss over classes; over images it is a mean. The papers of big_vision
    (BiT, AugReg) take the sum, which makes gradients so many times larger."""


def evaluate(
    config: Multilabel, model: nn.Module, batches: BatchesOfSplit, splits: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Loss and mean average precision of each split; of images of one label also top-1 accuracy."""
    scores = {}
    for split in splits:
        parts = [(model(b.images).float(), b.targets, b.labels) for b in batches(split, None)]
        outputs, targets, labels = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        scores[split] = {
            "loss": _loss(config, outputs.double(), targets.double()).item(),
            "map": mean_average_precision(outputs, targets > 0),
        }
        if labels.ndim == 1:
            right = (outputs.argmax(1) == labels).double()
            scores[split]["accuracy"] = right.mean().item()
    return scores


@objective(
    "multilabel",
    views=1,
    outputs=lambda config, num_classes: num_classes,
    evaluate=evaluate,
    scores=("loss", "map", "accuracy"),
    labels="any",
    paper="Steiner et al. 2022, arXiv 2106.10270 (its loss)",
)
def multilabel(config: Multilabel, model: nn.Module, batch: Batch) -> Loss:
    """Binary cross-entropy with each class: for images with several labels, or one.

    Outputs [batch, num_classes], as logits, against soft targets of that shape.
    """
    return Loss(_loss(config, model(batch.images), batch.targets))


def _loss(config: Multilabel, outputs: Tensor, targets: Tensor) -> Tensor:
    losses = F.binary_cross_entropy_with_logits(outputs, targets, reduction="none")
    of_images = losses.sum(1) if config.reduction == "sum" else losses.mean(1)
    return of_images.mean()
