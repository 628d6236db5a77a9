"""SoftCon: how similar two images' projections become depends on how alike their labels are."""

from typing import Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor, nn
from torch.nn import functional as F

from vitarium.core.devices import without_autocast
from vitarium.data.batch import Batch
from vitarium.objectives._feature_scores import WITHOUT_HEAD
from vitarium.objectives._labels import LabelSimilarity, label_similarity
from vitarium.objectives._similarities import (
    info_nce,
    matches,
    needs_two_images,
)
from vitarium.objectives.base import Loss, objective
from vitarium.objectives.contrastive._momentum import (
    MomentumCompanions,
    MomentumContrast,
    prepare,
)
from vitarium.objectives.contrastive.base import weighted_contrast


class Softcon(MomentumContrast):
    """Similarities of queries and keys follow those of labels, beside MoCo v3's loss.

    The authors released no loss; what the paper leaves open is a setting.
    """

    label_similarity: LabelSimilarity = "cosine"
    """How alike two images' labels are: the cosine of their rows, or labels of both over labels of
    either (jaccard)."""
    form: Literal["bce", "mse", "supcon"] = "bce"
    """How projections follow the labels: binary cross-entropy (bce) or mean squared error (mse) of
    sigmoid(scale * cosine + offset), or a softmax with the labels' similarities as weights
    (supcon: multi-label SupCon)."""
    scale: PositiveFloat = 10.0
    """Factor of the cosine in the sigmoid."""
    offset: float = -5.0
    """What is added to it: with the defaults cosines of 0, 0.5 and 1 become 0.007, 0.5, 0.993."""
    threshold: float = Field(0.5, gt=0, le=1)
    """For `form: supcon`: images whose labels are at least that similar attract each other."""
    contrastive_weight: NonNegativeFloat = 1.0
    """Weight of MoCo v3's loss, beside 1 for that of the labels."""
    frozen_patch_embed: bool = False
    """The patch embedding stays as it is; from scratch that is a random one."""
    fixed_positions: bool = False
    """Positions are sines and cosines that do not learn. Else those of the architecture."""


def soft_contrast(config: Softcon, cosines: Tensor, similarity: Tensor) -> Tensor:
    """How far the cosines of queries and keys are from what the labels say: a scalar.

    cosines [batch, batch] of queries (rows) and keys; similarity [batch, batch] in [0, 1]
    """
    if config.form == "supcon":
        weights = similarity * (similarity >= config.threshold)
        return weighted_contrast(cosines / config.temperature, weights)
    logits = config.scale * cosines + config.offset
    if config.form == "mse":
        return F.mse_loss(logits.sigmoid(), similarity)
    return F.binary_cross_entropy_with_logits(logits, similarity)


@objective(
    "softcon",
    views=2,
    **WITHOUT_HEAD,
    per_image=False,
    companions=lambda config, model, num_classes: MomentumCompanions(config, model),
    prepare=prepare,
    misfits=needs_two_images,
    paper="Wang et al. 2024, arXiv 2405.20462",
    tiny={"projector_hidden_dim": 32, "out_dim": 16, "momentum": 0.9},
)
def softcon(
    config: Softcon, model: nn.Module, batch: Batch, companions: MomentumCompanions
) -> Loss:
    """SoftCon: similarities between images follow those of their labels, one or several each.

    images [2 * batch, c, h, w], and targets [batch, num_classes]; the mean over both directions.
    """
    (first, second), keys = companions.queries_and_keys(model, batch.images)
    with without_autocast(first):
        similarity = label_similarity(batch.targets, config.label_similarity)
        pairs = ((first, keys[1]), (second, keys[0]))
        softs = [soft_contrast(config, q @ k.T, similarity) for q, k in pairs]
        soft = torch.stack(softs).mean()
        ordinary = torch.stack([info_nce(q, k, config.temperature) for q, k in pairs]).sum()
    loss = soft + config.contrastive_weight * 2 * config.temperature * ordinary
    accuracy = matches(first, keys[1])
    return Loss(loss, soft_loss=soft, contrastive_accuracy=accuracy)
