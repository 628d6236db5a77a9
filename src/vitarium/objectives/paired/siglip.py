"""SigLIP: for each two images of a batch, whether they are a pair."""

from typing import Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from vitarium.core.devices import without_autocast
from vitarium.data.batch import Batch
from vitarium.objectives._feature_scores import FEATURE_SCORES
from vitarium.objectives._labels import share_a_label
from vitarium.objectives._similarities import matches, needs_two_images
from vitarium.objectives.base import Loss, objective
from vitarium.objectives.paired.base import (
    LARGEST_SCALE,
    PairCompanions,
    Paired,
    evaluate_first,
    extra_channels,
)


class Siglip(Paired):
    """Logistic regression on scale * cosine + offset of every two images of a batch."""

    initial_scale: float = Field(10.0, gt=0, le=LARGEST_SCALE)
    """Factor of the cosine similarities at the start, at most 100; it is learned, without weight
    decay."""
    initial_offset: float = -10.0
    """What is added to them at the start; learned like the scale. So far below 0 since nearly all
    of a batch's combinations are no pairs."""
    equal_labels: Literal["negative", "positive"] = "negative"
    """Whether images that share a label are pairs, too (positive), or only an image and its
    partner."""
    chunk: PositiveInt | None = None
    """Second images whose similarities are computed at a time, for less memory and the same loss;
    none: all."""


def siglip_loss(
    first: Tensor,
    second: Tensor,
    scale: Tensor | float,
    offset: Tensor | float,
    positives: Tensor | None = None,
    chunk: int | None = None,
) -> Tensor:
    """Sum over all combinations of -log sigmoid(+-logit), by the images of the batch: a scalar.

    first, second: rows of length 1, [batch, width], partners in the same row.
    positives: bool [batch, batch]; which are pairs. None: partners alone.
    chunk: columns at a time; None: all at once.
    """
    count = len(first)
    total = first.new_zeros(())
    for start in range(0, count, chunk or count):
        columns = slice(start, start + (chunk or count))
        logits = scale * first @ second[columns].T + offset
        total = total + F.softplus(logits).sum()
        if positives is not None:
            total = total - torch.where(positives[:, columns], logits, 0.0).sum()
    if positives is None:
        total = total - (scale * (first * second).sum(1) + offset).sum()
    return total / count


def _companions(config: Siglip, model: nn.Module, num_classes: int) -> PairCompanions:
    return PairCompanions(config, model, config.initial_scale, config.initial_offset)


@objective(
    "siglip",
    views=2,
    needs_head=False,
    trains_head=False,
    per_image=False,
    outputs=lambda config, num_classes: num_classes,
    evaluate=evaluate_first,
    scores=FEATURE_SCORES,
    companions=_companions,
    misfits=needs_two_images,
    extra_channels=extra_channels,
    without_decay=("log_scale", "offset"),
    paper="Zhai et al. 2023, arXiv 2303.15343",
    tiny={"out_dim": 8, "equal_labels": "positive", "chunk": 4},
)
def siglip(config: Siglip, model: nn.Module, batch: Batch, companions: PairCompanions) -> Loss:
    """SigLIP: tell pairs from all other combinations: other views, or other modalities.

    images [2 * batch, c, h, w]: all first views, then all second ones.
    """
    first, second = companions.pairs(model, batch.images)
    with without_autocast(first):
        positives = share_a_label(batch.targets) if config.equal_labels == "positive" else None
        scale, offset = companions.scale, companions.offset
        loss = siglip_loss(first, second, scale, offset, positives, config.chunk)
    metrics = {"scale": scale.squeeze(0), "offset": offset.squeeze(0)}
    return Loss(loss, pair_accuracy=matches(first, second), **metrics)
