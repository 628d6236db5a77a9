"""SupCon: views of all images of a class attract each other."""

import torch
from torch import Tensor, nn

from vitarium.architectures.heads import num_features
from vitarium.core.devices import without_autocast
from vitarium.data.batch import Batch
from vitarium.objectives._feature_scores import WITHOUT_HEAD
from vitarium.objectives._labels import share_a_label
from vitarium.objectives._projectors import projector
from vitarium.objectives._similarities import needs_two_images, unit
from vitarium.objectives.base import Loss, objective
from vitarium.objectives.companions import Companions
from vitarium.objectives.contrastive.base import Contrastive, weighted_contrast

_BASE_TEMPERATURE = 0.07
"""Of the paper's code: the loss is multiplied by temperature / 0.07."""


class Supcon(Contrastive):
    """InfoNCE with all views of the same class as positives; the projector is dropped afterwards.

    With several labels each, images that share one are positives.
    """


class ProjectorCompanion(Companions):
    def __init__(self, config: Contrastive, model: nn.Module) -> None:
        super().__init__()
        width = num_features(model)
        self.projector = projector(width, config.projector_hidden_dim or width, config.out_dim)


def supervised_contrast(views: Tensor, positives: Tensor, temperature: float) -> Tensor:
    """The loss L_out of the paper (Eq. 2), times temperature / 0.07 as in its code: a scalar.

    views [v * batch, width]: rows of length 1, all first views, then all second ones ...
    positives: bool [batch, batch]; images whose views attract each other.
    """
    count = len(views) // len(positives)
    itself = torch.eye(len(views), dtype=torch.bool, device=views.device)
    logits = (views @ views.T / temperature).masked_fill(itself, float("-inf"))
    weights = positives.repeat(count, count).masked_fill(itself, False).float()
    return temperature / _BASE_TEMPERATURE * weighted_contrast(logits, weights)


@objective(
    "supcon",
    views=2,
    **WITHOUT_HEAD,
    per_image=False,
    companions=lambda config, model, num_classes: ProjectorCompanion(config, model),
    misfits=needs_two_images,
    paper="Khosla et al. 2020, arXiv 2004.11362",
    tiny={"projector_hidden_dim": 16, "out_dim": 8},
)
def supcon(config: Supcon, model: nn.Module, batch: Batch, companions: ProjectorCompanion) -> Loss:
    """Supervised contrastive learning: views of all images of a class attract each other.

    images [2 * batch, c, h, w], and targets [batch, num_classes] of one or several labels.
    """
    projections = companions.projector(model(batch.images))
    with without_autocast(projections):
        positives = share_a_label(batch.targets)
        loss = supervised_contrast(unit(projections), positives, config.temperature)
    return Loss(loss)
