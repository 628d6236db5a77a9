"""Self-distillation of patches beside crops: heads, mask token, and both networks' logits."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from vitarium.architectures.heads import num_features
from vitarium.architectures.patch_tokens import require_plain
from vitarium.core.config import Config
from vitarium.core.errors import InvalidInput
from vitarium.data.batch import Batch
from vitarium.objectives.companions import MomentumTeacher
from vitarium.objectives.self_distillation._crop_tokens import encode_crops
from vitarium.objectives.self_distillation.base import SelfDistillation, SelfDistillationCompanions


class SeparateHeads(Config):
    """Settings of heads for crops and patches."""

    shared_head: bool = True
    """One head for crops and patches, in student and teacher; else one for each."""


class CropsAndPatches(NamedTuple):
    """What a network says of its views.

    crops: logits [views * batch, prototypes].
    patches: logits of global crops' patches [2 * batch, n, prototypes].
    features: pooled features of crops, before the head [views * batch, width].
    gram: the loss of Gram anchoring, a scalar.
    """

    crops: Tensor
    patches: Tensor
    features: Tensor
    gram: Tensor | None = None


class PatchCompanions(SelfDistillationCompanions):
    """Beside DINO's: a mask token, a center of patches' logits, and where wanted a second head."""

    def __init__(self, config: SelfDistillation, model: nn.Module) -> None:
        plain = require_plain(model, "self-distillation of patches")
        shares = not isinstance(config, SeparateHeads) or config.shared_head
        if shares and num_features(plain) != plain.embed_dim:
            raise InvalidInput(
                "one head for crops and patches needs features as wide as patches, and those of "
                f"{type(model).__name__} are {num_features(plain)} and {plain.embed_dim} wide: "
                "`shared_head: false` has one for each"
            )
        super().__init__(config, model)
        self.patch_center: Tensor
        self.mask_token = nn.Parameter(torch.zeros(plain.embed_dim))
        self.patch_head = self.patch_teacher_head = None
        if not shares:
            self.patch_head = self._new_head(plain.embed_dim)
            self.patch_teacher_head = MomentumTeacher(self.patch_head)
        self.register_buffer("patch_center", torch.zeros(config.prototypes))

    def _follow(self, model: nn.Module, momentum: float) -> None:
        super()._follow(model, momentum)
        if self.patch_head is not None and self.patch_teacher_head is not None:
            self.patch_teacher_head.follow(self.patch_head, momentum)


def student_logits(model: nn.Module, batch: Batch, companions: PatchCompanions) -> CropsAndPatches:
    """Of all views, global ones first, whose masked patches are hidden."""
    plain = require_plain(model, "self-distillation of patches")
    pooled, patches = encode_crops(plain, batch.images, batch.masks, companions.mask_token)
    gram = None if companions.gram is None else companions.gram.loss(patches, batch)
    if (local := batch.other_views.get("local")) is not None:
        pooled = torch.cat([pooled, encode_crops(plain, local)[0]])
    patch_head = companions.patch_head or companions.head
    return CropsAndPatches(companions.head(pooled), patch_head(patches), pooled, gram)


def teacher_logits(batch: Batch, companions: PatchCompanions) -> CropsAndPatches:
    """Of the global crops, of which the teacher sees every patch."""
    plain = require_plain(companions.teacher.module, "self-distillation of patches")
    pooled, patches = encode_crops(plain, batch.images)
    head = companions.teacher_head
    patch_head = companions.patch_teacher_head or head
    return CropsAndPatches(head(pooled), patch_head(patches), pooled)
