"""CLIP: each image finds its partner among those of the batch, in both directions."""

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from vitarium.core.devices import without_autocast
from vitarium.data.batch import Batch
from vitarium.objectives._feature_scores import FEATURE_SCORES
from vitarium.objectives._similarities import matches, needs_two_images
from vitarium.objectives.base import Loss, objective
from vitarium.objectives.paired.base import (
    LARGEST_SCALE,
    PairCompanions,
    Paired,
    evaluate_first,
    extra_channels,
)


class Clip(Paired):
    """Cross-entropy of each image's partner among all of the batch.

    Other images of the same class count as wrong: where each image has a twin in the batch, the
    loss cannot be less than log 2.
    """

    initial_scale: float = Field(1 / 0.07, gt=0, le=LARGEST_SCALE)
    """Factor of the cosine similarities at the start, at most 100; it is learned, without weight
    decay."""


def clip_loss(first: Tensor, second: Tensor, scale: Tensor | float) -> Tensor:
    """Mean of both directions' cross-entropies, a scalar.

    first, second: rows of length 1, [batch, width], partners in the same row.
    """
    logits = scale * first @ second.T
    own = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


@objective(
    "clip",
    views=2,
    needs_head=False,
    trains_head=False,
    per_image=False,
    outputs=lambda config, num_classes: num_classes,
    evaluate=evaluate_first,
    scores=FEATURE_SCORES,
    companions=lambda config, model, _: PairCompanions(config, model, config.initial_scale),
    misfits=needs_two_images,
    extra_channels=extra_channels,
    without_decay=("log_scale",),
    paper="Radford et al. 2021, arXiv 2103.00020",
    tiny={"out_dim": 8},
)
def clip(config: Clip, model: nn.Module, batch: Batch, companions: PairCompanions) -> Loss:
    """CLIP: find each image's partner in the batch: another view, or another modality.

    images [2 * batch, c, h, w]: all first views, then all second ones.
    """
    first, second = companions.pairs(model, batch.images)
    with without_autocast(first):
        loss = clip_loss(first, second, companions.scale)
    accuracy = matches(first, second)
    return Loss(loss, pair_accuracy=accuracy, scale=companions.scale.squeeze(0))
