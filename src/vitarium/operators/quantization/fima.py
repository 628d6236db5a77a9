"""FIMA-Q: reconstruct blocks by a low-rank and diagonal estimate of the Fisher information."""

from collections.abc import Callable
from itertools import count

import torch
from pydantic import PositiveInt
from torch import Tensor

from vitarium.architectures.quantized.quantized_vit import fit_weights
from vitarium.core import seeds
from vitarium.operators.base import Ingredients, NamedTensors, operator
from vitarium.operators.quantization._adaptive import AdaptiveRounding, round_adaptively
from vitarium.operators.quantization._losses import BlockLoss, FisherLoss, slopes
from vitarium.operators.quantization._parts import Task, logits_from, outputs_of
from vitarium.operators.quantization._twins import quantized_architecture, quantized_head
from vitarium.operators.quantization.repq import reparameterize, repq_twin


class Fima(AdaptiveRounding):
    rank: PositiveInt = 5
    """Rows of the low-rank estimate, which are measured while a block is optimized, one every
    `steps` / `rank` steps (5 with 4 bits, 15 with 3 as published)."""


@operator(
    "fima",
    title="FIMA-Q",
    models=(1, 1),
    split="train",
    architecture=quantized_architecture,
    head=quantized_head,
    compression="post_training",
    paper="Wu et al. 2025, arXiv 2506.11543",
    tiny={"num_images": 8, "reconstruction_images": 8, "steps": 2, "rank": 2},
)
def fima(config: Fima, ingredients: Ingredients) -> NamedTensors:
    """Quantize a ViT, and learn the rounding of weights block by block by their Fisher information.

    Yields (name, tensor [*shape]) of a `quantized_vit`. Errors of a block's outputs count by an
    estimate of the Fisher information of the predictions: a diagonal and `rank` rows, measured on
    the block as it is quantized then. Scales of activations are learned beside the rounding.
    Raises IncompatibleWeights as `repq`.
    """
    twin = repq_twin(config, ingredients)
    reparameterize(twin.model)
    fit_weights(twin.model)
    images = twin.examples.first(config.reconstruction_images)
    batch = next(images.batches(len(images))).images
    reference = outputs_of(logits_from(twin.original, -1), batch[: config.sensitivity_images])

    def new_loss(task: Task) -> tuple[BlockLoss, Callable[[], None]]:
        loss, steps = FisherLoss(), count(1)
        _add_row(loss, task, reference)

        def after() -> None:
            if loss.rank < config.rank and next(steps) % max(config.steps // config.rank, 1) == 0:
                _add_row(loss, task, reference)

        return loss, after

    with seeds.seeded(config.seed):
        round_adaptively(config, ingredients, twin, batch, new_loss)
    yield from twin.packed(ingredients.log)


def _add_row(loss: FisherLoss, task: Task, reference: Tensor) -> None:
    """Measure the block as it is now, on as many images as the reference [n, classes] has."""
    outputs = outputs_of(task.twin, task.inputs[: len(reference)])
    parts = [
        slopes(task.logits, batch, expected)
        for batch, expected in zip(outputs.split(8), reference.split(8), strict=True)
    ]
    loss.add(outputs - task.targets[: len(reference)], torch.cat(parts))
