"""APHQ-ViT: reconstruct blocks by how predictions react to shifts, after GELU has become ReLU."""

import torch

from vitarium.architectures.quantized.quantized_vit import fit_weights
from vitarium.core import seeds
from vitarium.core.registry import Section, choose
from vitarium.operators.base import Ingredients, NamedTensors, operator
from vitarium.operators.quantization._adaptive import AdaptiveRounding, round_adaptively
from vitarium.operators.quantization._losses import (
    BlockLoss,
    ImportanceLoss,
    perturbation_importance,
)
from vitarium.operators.quantization._parts import Task, logits_from, outputs_of
from vitarium.operators.quantization._relu_mlps import ReluMlps, fit_relu_mlps
from vitarium.operators.quantization._twins import (
    fit_activations,
    quantized_architecture,
    quantized_head,
)
from vitarium.operators.quantization.repq import reparameterize, repq_twin


class Aphq(AdaptiveRounding, ReluMlps):
    relu: bool = True
    """Give MLPs ReLU in place of their activation function, and fit them to what they computed."""


def relu_architecture(config: Aphq, architecture: Section | None) -> Section:
    """As `quantized_architecture`, with ReLU unless the settings keep the activation function."""
    quantized = quantized_architecture(config, architecture)
    if not config.relu:
        return quantized
    factors = {**quantized.factors(defaults=False), "act_layer": "relu"}
    return choose("architecture", factors.pop("name"), **factors)


@operator(
    "aphq",
    title="APHQ-ViT",
    models=(1, 1),
    split="train",
    architecture=relu_architecture,
    head=quantized_head,
    compression="post_training",
    paper="Wu et al. 2025, arXiv 2504.02508",
    tiny={"num_images": 8, "reconstruction_images": 8, "steps": 2, "mlp_steps": 2},
)
def aphq(config: Aphq, ingredients: Ingredients) -> NamedTensors:
    """Quantize a ViT with ReLU, and learn the rounding of weights block by block by importance.

    Yields (name, tensor [*shape]) of a `quantized_vit`. First each MLP is fitted with ReLU to what
    it computed, also with its hidden units clipped (Sec. 3.3). Then errors of a block's outputs
    count by how the derivatives of the predictions change when all outputs are shifted (Sec. 3.2),
    averaged over images. Scales of activations are learned beside the rounding. Raises
    IncompatibleWeights as `repq`.
    """
    twin = repq_twin(config, ingredients, architecture=relu_architecture)
    images = twin.examples.first(config.reconstruction_images)
    batch = next(images.batches(len(images))).images
    sample = batch[: config.sensitivity_images]
    reference = outputs_of(logits_from(twin.original, -1), sample)

    def new_loss(task: Task) -> tuple[BlockLoss, None]:
        targets = task.targets[: len(reference)]
        parts = [
            perturbation_importance(task.logits, outputs, expected)
            for outputs, expected in zip(targets.split(8), reference.split(8), strict=True)
        ]
        return ImportanceLoss(torch.cat(parts).mean(0)), None

    with seeds.seeded(config.seed):
        if config.relu:
            fit_relu_mlps(config, ingredients, twin, batch, reference, config.batch_size)
            fit_weights(twin.model)
            fit_activations(twin)
        reparameterize(twin.model)
        fit_weights(twin.model)
        round_adaptively(config, ingredients, twin, batch, new_loss)
    yield from twin.packed(ingredients.log)
