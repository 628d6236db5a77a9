"""iBOT: DINO, and a student that predicts what its teacher says of patches hidden from it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from pydantic import NonNegativeFloat
from torch import Tensor, nn

from vitarium.architectures.patch_tokens import require_plain
from vitarium.core.devices import without_autocast
from vitarium.data.batch import Batch
from vitarium.objectives._feature_scores import WITHOUT_HEAD
from vitarium.objectives.base import Loss, TokenMasks, objective
from vitarium.objectives.self_distillation._losses import (
    centered_targets,
    cross_view_loss,
    entropy_share,
    patch_loss,
)
from vitarium.objectives.self_distillation._masks import MaskedPatches, patch_masks
from vitarium.objectives.self_distillation._patch_heads import (
    PatchCompanions,
    SeparateHeads,
    student_logits,
    teacher_logits,
)
from vitarium.objectives.self_distillation.base import SelfDistillation, by_view, common_misfits

if TYPE_CHECKING:
    from vitarium.blueprint.recipe import Recipe


class Ibot(MaskedPatches, SeparateHeads, SelfDistillation):
    """DINO's loss, with masked global crops for the student, and the same loss of masked patches.

    Teacher and student share one head for crops and patches, or both have two.
    """

    patch_weight: NonNegativeFloat = 1.0
    """Weight of the masked patches' loss, beside 1 for the crops'."""


def masks(config: Ibot, model: nn.Module) -> TokenMasks:
    """Each global crop is masked or not by itself; blocks have a ninth of the patches or more."""
    rows, columns = require_plain(model, "objective 'ibot'").patch_embed.grid_size
    smallest = (min(rows, columns) // 3) ** 2
    return patch_masks(config, model, smallest_block=smallest, evenly=False)


def misfits(config: Ibot, recipe: "Recipe") -> Mapping[str, str]:
    return common_misfits(config, recipe, plain=True)


@objective(
    "ibot",
    views=2,
    **WITHOUT_HEAD,
    companions=lambda config, model, num_classes: PatchCompanions(config, model),
    masks=masks,
    misfits=misfits,
    records_blocks=True,
    paper="Zhou et al. 2022, arXiv 2111.07832",
    tiny={
        "prototypes": 24,
        "hidden_dim": 16,
        "bottleneck_dim": 8,
        "momentum": 0.99,
        "center_momentum": 0.99,
        "mask_ratio": [0.5, 0.9],
    },
)
def ibot(config: Ibot, model: nn.Module, batch: Batch, companions: PatchCompanions) -> Loss:
    """iBOT: self-distillation between crops, and of patches that are hidden from the student.

    images [2 * batch, c, h, w] with masks [2 * batch, n], and other_views["local"] where there are
    local crops, which are not masked.
    """
    student = student_logits(model, batch, companions)
    with torch.no_grad():
        teacher = teacher_logits(batch, companions)
        targets, of_patches = (
            centered_targets(logits, center, companions.temperature)
            for logits, center in (
                (teacher.crops, companions.center),
                (teacher.patches, companions.patch_center),
            )
        )
    assert batch.masks is not None
    with without_autocast(targets):
        log_probabilities = companions.log_probabilities(student.crops)
        crops = cross_view_loss(by_view(targets, batch), by_view(log_probabilities, batch))
        log_probabilities = companions.log_probabilities(student.patches)
        patches = patch_loss(of_patches, log_probabilities, batch.masks)
    loss, metrics = crops + config.patch_weight * patches, {"patch_loss": patches}
    if student.gram is not None:
        loss, metrics["gram_loss"] = loss + student.gram, student.gram
    means: dict[str, Tensor] = {
        "center": teacher.crops.mean(0),
        "patch_center": teacher.patches.mean((0, 1)),
    }
    return Loss(
        loss,
        means,
        crop_loss=crops,
        teacher_entropy=entropy_share(targets),
        center_norm=companions.center.norm(),
        **metrics,
    )
