"""MoCo v3: each image's query finds its own key, of a momentum encoder, among those of a batch."""

from torch import nn

from vitarium.core.devices import without_autocast
from vitarium.data.batch import Batch
from vitarium.objectives._feature_scores import WITHOUT_HEAD
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


class MocoV3(MomentumContrast):
    """InfoNCE between queries and keys; projectors and momentum encoder are dropped afterwards."""


@objective(
    "moco_v3",
    views=2,
    **WITHOUT_HEAD,
    per_image=False,
    companions=lambda config, model, num_classes: MomentumCompanions(config, model),
    prepare=prepare,
    misfits=needs_two_images,
    paper="Chen et al. 2021, arXiv 2104.02057",
    tiny={"projector_hidden_dim": 32, "out_dim": 16, "momentum": 0.9},
)
def moco_v3(config: MocoV3, model: nn.Module, batch: Batch, companions: MomentumCompanions) -> Loss:
    """MoCo v3: queries of one view against keys of the other, by a momentum encoder.

    Two InfoNCE losses, one for each view's queries, each times 2 * temperature.
    """
    (first, second), keys = companions.queries_and_keys(model, batch.images)
    with without_autocast(first):
        loss = info_nce(first, keys[1], config.temperature)
        loss = loss + info_nce(second, keys[0], config.temperature)
    return Loss(2 * config.temperature * loss, contrastive_accuracy=matches(first, keys[1]))
