"""Gram anchoring: similarities between a student's patches stay those of an earlier teacher
(Siméoni et al. 2025, arXiv 2508.10104, Sec. 4)."""

import torch
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from vitarium.architectures.patch_tokens import patch_grid, patch_size, require_plain
from vitarium.core.config import Config
from vitarium.core.devices import without_autocast
from vitarium.data.batch import Batch
from vitarium.objectives.companions import MomentumTeacher, Progress
from vitarium.objectives.self_distillation._crop_tokens import encode_crops


class GramAnchoring(Config):
    """A loss between similarities of patches, beside self-distillation's.

    The Gram teacher is the momentum teacher as it was before `from_epoch`. It sees the global
    crops, or, where the augmentation gives some, the same ones larger and undistorted.
    """

    from_epoch: PositiveInt
    """First epoch with this loss. The Gram teacher is the momentum teacher at the end of the epoch
    before, and in epoch 1 the model that training starts from."""
    weight: PositiveFloat = 2.0
    """Weight of this loss; 2 in DINOv3."""
    update_every: PositiveInt | None = None
    """Epochs after which the Gram teacher is replaced by the momentum teacher; none: it stays."""
    max_updates: NonNegativeInt = 3
    """How often it is replaced at most."""
    clamp_negatives: bool = False
    """Count negative similarities as 0, in student and teacher."""


class GramTeacher(nn.Module):
    """An earlier momentum teacher, and the weight of its loss, which is 0 at first."""

    def __init__(self, config: GramAnchoring, model: nn.Module) -> None:
        super().__init__()
        self.weight: Tensor
        self.config = config
        self.teacher = MomentumTeacher(require_plain(model, "Gram anchoring"))
        self.register_buffer("weight", torch.tensor(0.0), persistent=False)

    def before_step(self, progress: Progress) -> None:
        self.weight.fill_(self.config.weight * (progress.epoch >= self.config.from_epoch))

    def after_step(self, teacher: MomentumTeacher, progress: Progress) -> None:
        if progress.is_last_of_epoch and is_update(self.config, progress.epoch):
            self.teacher.follow(teacher.module, momentum=0.0)

    def loss(self, patches: Tensor, batch: Batch) -> Tensor:
        """Of the student's patches [2 * batch, n, width], normed -> scalar, weighted"""
        images = batch.other_views.get("undistorted", batch.images)
        with torch.no_grad():
            model = require_plain(self.teacher.module, "Gram anchoring")
            _, larger = encode_crops(model, images)
            patch = patch_size(model)
            grid = (images.shape[2] // patch[0], images.shape[3] // patch[1])
            anchor = reduced_map(larger, grid, patch_grid(model))
        return self.weight * gram_loss(patches, anchor, clamp_negatives=self.config.clamp_negatives)


def is_update(config: GramAnchoring, epoch: int) -> bool:
    """Whether the momentum teacher becomes the Gram teacher at the end of an epoch."""
    since = epoch + 1 - config.from_epoch
    if since <= 0 or config.update_every is None:
        return since == 0
    number, rest = divmod(since, config.update_every)
    return rest == 0 and number <= config.max_updates


def reduced_map(patches: Tensor, grid: tuple[int, int], to: tuple[int, int]) -> Tensor:
    """Features of another grid, by bicubic interpolation without antialiasing.

    [batch, rows * columns of `grid`, width] -> [batch, rows * columns of `to`, width]
    """
    if grid == to:
        return patches
    maps = patches.float().transpose(1, 2).unflatten(2, grid)
    resized = F.interpolate(maps, to, mode="bicubic", align_corners=False, antialias=False)
    return resized.flatten(2).transpose(1, 2)


def gram_loss(patches: Tensor, anchor: Tensor, *, clamp_negatives: bool = False) -> Tensor:
    """Mean squared difference of cosine similarities between patches of the same image.

    [batch, n, width] and [batch, n, any width] -> scalar
    """
    with without_autocast(patches):
        own, others = similarities(patches), similarities(anchor)
    if clamp_negatives:
        own, others = own.clamp_min(0), others.clamp_min(0)
    return (own - others).square().mean()


def similarities(patches: Tensor) -> Tensor:
    """Cosines between patches: [batch, n, width] -> [batch, n, n]"""
    unit = F.normalize(patches.float(), dim=-1)
    return unit @ unit.transpose(1, 2)
