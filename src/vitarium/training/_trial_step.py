"""A step of training without memory: what it would stop at is known before anything is trained."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from vitarium.architectures.base import HasAuxiliaryLoss, SamplesSubnetworks
from vitarium.blueprint import Recipe
from vitarium.core import seeds
from vitarium.core.devices import meta_device
from vitarium.data.batch import Batch
from vitarium.objectives.companions import Companions, Progress
from vitarium.training._companions import MaskStream, make_companions, prepare_model
from vitarium.training._progressive import image_sizes, take_all_sizes
from vitarium.training._training_mode import enter_training_mode
from vitarium.training.teacher import Teacher


def check_step(
    recipe: Recipe,
    model: nn.Module,
    num_classes: int,
    *,
    from_scratch: bool,
    teacher: Teacher | None = None,
) -> None:
    """Compute the loss of a batch as training does, with an adapted model on the meta device.

    Raises what training would raise, and what torch says of operations that need values, see
    `core.devices.lacks_values`.
    """
    with meta_device():
        prepare_model(recipe, model, from_scratch=from_scratch)
        companions = make_companions(recipe, model, num_classes)
    _, *own_size = recipe.image_size
    sizes = [(own_size[0], own_size[1])]
    if recipe.progressive:
        sizes = list(dict.fromkeys(image_sizes(recipe, model)))
        if len(sizes) > 1:
            take_all_sizes(model)
    enter_training_mode(recipe, model, companions)
    for size in sizes:
        with seeds.seeded(0):
            _compute_loss(
                recipe, model, companions, _batch(recipe, model, size, num_classes), teacher
            )


def _compute_loss(
    recipe: Recipe,
    model: nn.Module,
    companions: Companions | None,
    batch: Batch,
    teacher: Teacher | None,
) -> None:
    for module in model.modules():
        if isinstance(module, SamplesSubnetworks):
            module.sample(1, recipe.accumulation)
            module.select(0)
    beside = () if companions is None else (companions,)
    if companions is not None:
        last = recipe.epochs  # when all parts of its loss count
        companions.before_step(Progress(last, last, step=last - 1, steps=last))
    if teacher is not None:
        batch = replace(batch, teacher_outputs=teacher(batch))
    recipe.objective(model, batch, *beside)
    for module in model.modules():
        if isinstance(module, HasAuxiliaryLoss):
            module.auxiliary_loss(batch.targets)


def _batch(recipe: Recipe, model: nn.Module, size: tuple[int, int], num_classes: int) -> Batch:
    """One part of a batch, on the meta device."""
    count = recipe.batch_size // recipe.accumulation
    views: int = recipe.objective.facts["views"]
    channels, *_ = recipe.image_size

    def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    images = empty(views * count, channels, *size)
    several = recipe.data.facts.get("several_labels", False)
    labels = (
        empty(count, num_classes, dtype=torch.bool) if several else empty(count, dtype=torch.int64)
    )
    others = recipe.augmentation(recipe.image_size, num_classes).other_views
    return Batch(
        images,
        labels,
        targets=empty(count, num_classes),
        masks=MaskStream(recipe, model)(images, 1, 0),
        other_views={name: empty(each.count * count, *each.size) for name, each in others.items()},
    )
