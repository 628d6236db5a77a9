"""A step of training without memory: what it would stop at is known before anything is trained."""

from dataclasses import replace
from functools import partial

import torch
from torch import nn

from vitarium.architectures.base import HasAuxiliaryLoss, SamplesSubnetworks
from vitarium.blueprint import Recipe
from vitarium.core import seeds
from vitarium.core.devices import lacks_values, meta_device
from vitarium.core.errors import VitariumError
from vitarium.data.batch import Batch
from vitarium.objectives.companions import Companions, Progress
from vitarium.training._companions import MaskStream, make_companions, prepare_model
from vitarium.training._progressive import image_sizes, take_all_sizes
from vitarium.training._training_mode import enter_training_mode
from vitarium.training.teacher import Teacher

_FEW = 8
"""Images of a step with memory."""


def check_step(
    recipe: Recipe,
    model: nn.Module,
    num_classes: int,
    *,
    from_scratch: bool,
    teacher: Teacher | None = None,
) -> None:
    """Compute the loss of a batch as training does, with an adapted model on the meta device.

    What fails there in another way than by an error of ours is computed once more with memory, of
    few images and weights that are zero: the device may be to blame. Raises what training would
    raise, and what torch says of operations that need values (`core.devices.lacks_values`).
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
    count = recipe.batch_size // recipe.accumulation

    def compute_losses(count: int, device: str) -> None:
        for size in sizes:
            with seeds.seeded(0):
                batch = _batch(recipe, model, (count, *size), num_classes, device)
                _compute_loss(recipe, model, companions, batch, teacher)

    try:
        compute_losses(count, "meta")
    except VitariumError:
        raise
    except Exception as error:  # plug-ins and libraries fail in many ways
        if lacks_values(error):
            raise
        for module in (model, companions, teacher.teacher if teacher else None):
            if module is not None:
                _allocate(module)
        compute_losses(min(count, _FEW), "cpu")


@torch.no_grad()
def _allocate(module: nn.Module) -> None:
    """Give a module of the meta device memory, with zeros, in place."""
    module.to_empty(device="cpu")
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.zero_()


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


def _batch(
    recipe: Recipe, model: nn.Module, size: tuple[int, int, int], num_classes: int, device: str
) -> Batch:
    """One part of a batch; size: how many images, their height and width."""
    zeros = partial(torch.zeros, device=device)
    (count, height, width), (channels, *_) = size, recipe.image_size
    images = zeros(recipe.objective.facts["views"] * count, channels, height, width)
    several = recipe.data.facts.get("several_labels", False)
    labels = zeros(count, num_classes).bool() if several else zeros(count).long()
    others = recipe.augmentation(recipe.image_size, num_classes).other_views
    return Batch(
        images,
        labels,
        targets=zeros(count, num_classes),
        masks=MaskStream(recipe, model)(images, 1, 0),
        other_views={n: zeros(o.count * count, *o.size) for n, o in others.items()},
    )
