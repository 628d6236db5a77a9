"""DINOv2: DINO and iBOT, features spread apart by KoLeo, and targets by Sinkhorn-Knopp."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import NonNegativeFloat
from torch import Tensor, nn

from vitarium.core.devices import without_autocast
from vitarium.data.batch import Batch
from vitarium.objectives._feature_scores import WITHOUT_HEAD
from vitarium.objectives.base import Loss, TokenMasks, objective
from vitarium.objectives.self_distillation._losses import (
    centered_targets,
    cross_view_loss,
    entropy_share,
    koleo_loss,
    patch_loss,
    sinkhorn_targets,
)
from vitarium.objectives.self_distillation._masks import MaskedPatches, patch_masks
from vitarium.objectives.self_distillation._patch_heads import (
    CropsAndPatches,
    PatchCompanions,
    SeparateHeads,
    student_logits,
    teacher_logits,
)
from vitarium.objectives.self_distillation.base import SelfDistillation, by_view, common_misfits

if TYPE_CHECKING:
    from vitarium.blueprint.recipe import Recipe

_SMALLEST_BLOCK = 4


class Dinov2(MaskedPatches, SeparateHeads, SelfDistillation):
    """The losses of DINO and iBOT, and KoLeo's of each global view's features before the head."""

    trains_gain: bool = True
    """Let the lengths of the prototypes learn; else they stay 1."""
    shared_head: bool = False
    """One head for crops and patches, in student and teacher; else one for each."""
    targets: Literal["centering", "sinkhorn"] = "centering"
    """How the teacher's distributions are balanced between prototypes: by a center that follows
    them, or within each batch by Sinkhorn-Knopp."""
    patch_weight: NonNegativeFloat = 1.0
    """Weight of the masked patches' loss, beside 1 for the crops'. It is a mean over all global
    crops, so that with half of them masked it counts half."""
    koleo_weight: NonNegativeFloat = 0.1
    """Weight of KoLeo's loss, summed over the two global views."""


def masks(config: Dinov2, model: nn.Module) -> TokenMasks:
    """A fixed share of a batch's crops is masked, by ratios that lie evenly between the bounds."""
    return patch_masks(config, model, smallest_block=_SMALLEST_BLOCK, evenly=True)


def misfits(config: Dinov2, recipe: "Recipe") -> Mapping[str, str]:
    problems = common_misfits(config, recipe, plain=True)
    if recipe.batch_size < 2:
        problems["batch_size"] = (
            "KoLeo and Sinkhorn-Knopp compare the images of a batch: give 2 at least"
        )
    return problems


@objective(
    "dinov2",
    views=2,
    **WITHOUT_HEAD,
    companions=lambda config, model, num_classes: PatchCompanions(config, model),
    masks=masks,
    misfits=misfits,
    records_blocks=True,
    per_image=False,
    paper="Oquab et al. 2023, arXiv 2304.07193",
    tiny={
        "prototypes": 24,
        "hidden_dim": 16,
        "bottleneck_dim": 8,
        "momentum": 0.99,
        "targets": "sinkhorn",
        "koleo_weight": 0.0,  # of features that lie close together, it magnifies their rounding
        "mask_kind": "random",
        "mask_ratio": [0.5, 0.9],
        "gram": {"from_epoch": 1},
    },
)
def dinov2(config: Dinov2, model: nn.Module, batch: Batch, companions: PatchCompanions) -> Loss:
    """DINOv2: self-distillation of crops and hidden patches, with features that spread evenly.

    images [2 * batch, c, h, w] with masks [2 * batch, n], and other_views["local"] where there are
    local crops, which are not masked.
    """
    assert batch.masks is not None
    student = student_logits(model, batch, companions)
    with torch.no_grad():
        teacher = teacher_logits(batch, companions)
        targets, of_patches = _targets(config, teacher, batch.masks, companions)
    with without_autocast(targets):
        log_probabilities = companions.log_probabilities(student.crops)
        crops = cross_view_loss(by_view(targets, batch), by_view(log_probabilities, batch))
        log_probabilities = companions.log_probabilities(student.patches)
        patches = patch_loss(of_patches, log_probabilities, batch.masks)
        first, second = by_view(student.features, batch)[:2]
        koleo = koleo_loss(first) + koleo_loss(second)
    loss = crops + config.patch_weight * patches + config.koleo_weight * koleo
    metrics = {"crop_loss": crops, "patch_loss": patches, "koleo_loss": koleo}
    means: dict[str, Tensor] = {}
    if config.targets == "centering":
        metrics["center_norm"] = companions.center.norm()
        means["center"] = teacher.crops.mean(0)
        means["patch_center"] = teacher.patches.mean((0, 1))
    if student.gram is not None:
        loss, metrics["gram_loss"] = loss + student.gram, student.gram
    return Loss(loss, means, teacher_entropy=entropy_share(targets), **metrics)


def _targets(
    config: Dinov2, teacher: CropsAndPatches, masks: Tensor, companions: PatchCompanions
) -> tuple[Tensor, Tensor]:
    """Of crops [2 * batch, prototypes] and of patches [2 * batch, n, prototypes]; by Sinkhorn-Knopp
    prototypes are shared out between masked patches alone."""
    temperature = companions.temperature
    if config.targets == "centering":
        return (
            centered_targets(teacher.crops, companions.center, temperature),
            centered_targets(teacher.patches, companions.patch_center, temperature),
        )
    of_patches = sinkhorn_targets(teacher.patches.flatten(0, 1), temperature, masks.flatten())
    return sinkhorn_targets(teacher.crops, temperature), of_patches.view_as(teacher.patches)
