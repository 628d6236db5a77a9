"""DINO: a student that predicts, from any crop, what its momentum teacher says of another."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from vitarium.architectures.features import features
from vitarium.architectures.patch_tokens import require_plain
from vitarium.core.devices import without_autocast
from vitarium.data.batch import Batch
from vitarium.objectives._feature_scores import WITHOUT_HEAD
from vitarium.objectives.base import Loss, objective
from vitarium.objectives.self_distillation._crop_tokens import encode_crops
from vitarium.objectives.self_distillation._losses import (
    centered_targets,
    cross_view_loss,
    entropy_share,
)
from vitarium.objectives.self_distillation.base import (
    SelfDistillation,
    SelfDistillationCompanions,
    by_view,
    common_misfits,
)

if TYPE_CHECKING:
    from vitarium.blueprint.recipe import Recipe


class Dino(SelfDistillation):
    """Cross-entropy between views, to the teacher's centered and sharpened distribution.

    The teacher sees the two global crops, the student these and the local ones of `multi_crop`;
    without local crops, any augmentation gives the two.
    """


def misfits(config: Dino, recipe: "Recipe") -> Mapping[str, str]:
    return common_misfits(config, recipe, plain=False)


@objective(
    "dino",
    views=2,
    **WITHOUT_HEAD,
    companions=lambda config, model, num_classes: SelfDistillationCompanions(config, model),
    misfits=misfits,
    records_blocks=True,
    paper="Caron et al. 2021, arXiv 2104.14294",
    tiny={"prototypes": 24, "hidden_dim": 16, "bottleneck_dim": 8, "center_momentum": 0.99},
)
def dino(
    config: Dino, model: nn.Module, batch: Batch, companions: SelfDistillationCompanions
) -> Loss:
    """DINO: self-distillation between crops of an image, with a momentum teacher and no labels.

    images [2 * batch, c, h, w], and other_views["local"] where there are local crops.
    """
    student, gram = _student_features(model, batch, companions)
    log_probabilities = companions.log_probabilities(companions.head(student))
    with torch.no_grad():
        teacher = features(companions.teacher.module, batch.images)
        logits = companions.teacher_head(teacher)
        targets = centered_targets(logits, companions.center, companions.temperature)
    with without_autocast(targets):
        loss = cross_view_loss(by_view(targets, batch), by_view(log_probabilities, batch))
    metrics = {} if gram is None else {"gram_loss": gram}
    return Loss(
        loss if gram is None else loss + gram,
        {"center": logits.mean(0)},
        teacher_entropy=entropy_share(targets),
        center_norm=companions.center.norm(),
        **metrics,
    )


def _student_features(
    model: nn.Module, batch: Batch, companions: SelfDistillationCompanions
) -> tuple[Tensor, Tensor | None]:
    """Of all views [views * batch, width], global ones first; and the loss of Gram anchoring."""
    local, gram = batch.other_views.get("local"), None
    if companions.gram is None:
        of_views = [features(model, batch.images)]
    else:
        pooled, patches = encode_crops(require_plain(model, "Gram anchoring"), batch.images)
        of_views, gram = [pooled], companions.gram.loss(patches, batch)
    if local is not None:
        of_views.append(encode_crops(require_plain(model, "local crops"), local)[0])
    return torch.cat(of_views), gram
