"""Align two models by permutations that are trained through the matching of their weights."""

from collections.abc import Iterator
from itertools import islice

import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from vitarium.architectures.symmetries.base import UnitTransforms, moved
from vitarium.core.config import Config
from vitarium.core.seeds import derive
from vitarium.evaluation.losses import gradients, mean_loss
from vitarium.operators.alignment._matching import TOLERANCE, Kinds, Matching, Tensors
from vitarium.operators.alignment._midpoint import Midpoint
from vitarium.operators.alignment._search import Search, matched, model_weights
from vitarium.operators.base import Ingredients, NamedTensors, operator


class StraightThrough(Config):
    steps: PositiveInt = 500
    """Training steps, each with a new matching that starts from the one before."""
    lr: PositiveFloat = 1e-2
    """Initial learning rate of SGD; it falls linearly toward zero."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum factor of SGD."""
    batch_size: PositiveInt = 128
    """Images per training step."""
    num_images: PositiveInt = 50_000
    """Largest number of training images to use, without augmentation."""
    evaluations: PositiveInt = 10
    """How many times during training the current permutation is evaluated, by the midpoint's loss
    on training images; the best one, the start included, is the result."""
    seed: NonNegativeInt = 0
    """Random seed of the order of the images and of the units."""


@operator(
    "straight_through",
    title="Straight-through matching",
    paper="Ainsworth et al. 2023, Git Re-Basin, arXiv 2209.04836, Algorithm 3",
    aligns=True,
    split="train",
    tiny={"num_images": 32, "batch_size": 16, "steps": 2},
)
def straight_through(config: StraightThrough, ingredients: Ingredients) -> NamedTensors:
    """Straight-through matching (Git Re-Basin): train a permutation that connects two models.

    Yields (name, tensor [*shape]) of the second model. Free weights, from the first model's, are
    trained to lower the loss halfway between the first model and the permutation of the second that
    best matches them; the gradient goes straight through the matching. It starts from weight
    matching. Raises IncompatibleWeights where no symmetries are declared, InvalidInput where the
    outputs are not the images' classes.
    """
    symmetries = ingredients.symmetries
    first, second = model_weights(ingredients)
    kinds: Kinds = dict.fromkeys(symmetries.groups, "permutation")
    start = matched(symmetries, first, second, kinds, Search(seed=config.seed)).moves
    midpoint = Midpoint(ingredients, config.num_images)
    trained = _trained(config, midpoint, (first, second), start)
    candidates = (moved(symmetries, second, moves) for moves in trained)
    yield from midpoint.best(first, moved(symmetries, second, start), candidates).items()


def _trained(
    config: StraightThrough,
    midpoint: Midpoint,
    models: tuple[Tensors, Tensors],
    moves: UnitTransforms,
) -> Iterator[UnitTransforms]:
    """The permutations that training comes by, as often as they are to be judged."""
    symmetries = midpoint.ingredients.symmetries
    first, source = (midpoint.running(model) for model in models)
    moving = {name: tensor.cpu() for name, tensor in source.items()}
    free = {name: tensor.clone() for name, tensor in first.items()}
    kinds: Kinds = dict.fromkeys(symmetries.groups, "permutation")
    optimizer = torch.optim.SGD(list(free.values()), config.lr, config.momentum)
    order = torch.Generator().manual_seed(derive(config.seed, "straight_through", "units"))
    batches = midpoint.examples.endless(config.batch_size, config.seed, "straight_through")
    every = max(1, config.steps // config.evaluations)
    for step, batch in enumerate(islice(batches, config.steps), start=1):
        midpoint.ingredients.report(step, config.steps)
        fixed = {name: tensor.cpu() for name, tensor in free.items()}
        near = Matching(symmetries, fixed, moving, kinds, start=moves)
        near.ascend(1, TOLERANCE, order)
        moves = near.moves
        nearest = midpoint.running(moved(symmetries, moving, moves))
        point = {n: ((tensor + nearest[n]) / 2).requires_grad_() for n, tensor in first.items()}
        with torch.enable_grad():
            value = mean_loss(midpoint.model, point, batch.images, batch.labels)
            slopes = gradients(value, list(point.values()))
        for tensor, slope in zip(free.values(), slopes, strict=True):
            tensor.grad = slope / 2  # half of the midpoint
        optimizer.param_groups[0]["lr"] = config.lr * (1 - (step - 1) / config.steps)
        optimizer.step()
        if step % every == 0 or step == config.steps:
            yield moves
