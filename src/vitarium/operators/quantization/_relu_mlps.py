"""MLPs of a ViT with ReLU, fitted to what they compute with another activation function."""

from functools import partial
from typing import Any

import torch
from pydantic import Field, NonNegativeInt
from torch import Tensor
from torch.nn import functional as F

from vitarium.core.config import Config
from vitarium.operators.base import Ingredients
from vitarium.operators.quantization._losses import perturbation_importance
from vitarium.operators.quantization._parts import logits_from, outputs_of, parts_of
from vitarium.operators.quantization._reconstruction import reconstruct
from vitarium.operators.quantization._training import training
from vitarium.operators.quantization._twins import Twin

_CLIPPED = 2.0
"""How much the error with clipped hidden units counts, beside that with all of them."""
_BATCH = 8
"""Images at a time of which importance is measured."""


class ReluMlps(Config):
    """Settings of the fit of MLPs."""

    mlp_steps: NonNegativeInt = 200
    """Steps for each MLP with ReLU (20,000 as published)."""
    mlp_lr: float = Field(1e-3, gt=0)
    """Learning rate of the MLPs, which falls to 0 by half a period of a cosine (4e-5 as published,
    for many more steps)."""
    percentile: float = Field(0.98, gt=0, le=1)
    """Of the positive hidden units; at this value they are clipped in one of the two losses (0.99
    with 3 bits, 0.98 with 4 as published)."""


def fit_relu_mlps(
    config: ReluMlps,
    ingredients: Ingredients,
    twin: Twin,
    images: Tensor,
    reference: Tensor,
    batch_size: int,
) -> None:
    """Fit `fc1` and `fc2` of every block of a twin with ReLU to the original's MLPs, in place.

    Each sees what the original's MLP sees: images [n, c, h, w]. The loss is the squared error of
    its outputs, and twice that with hidden units clipped, both weighted by importance (see
    `perturbation_importance`), which is measured on the first images; reference: their logits
    [m, classes]. The released code also lists the norm before an MLP as trained, and gives it no
    gradient.
    """
    original: Any = twin.original
    twin_blocks: Any = twin.model.blocks
    chain = parts_of(original)
    stream = outputs_of(chain[0].of(original), images)
    for number, block in enumerate(original.blocks):
        ingredients.report(number, len(original.blocks))
        part = chain[number + 1]
        stream = outputs_of(partial(part.enter, original), stream)
        middle = outputs_of(partial(_attended, block), stream)
        inputs = outputs_of(block.norm2, middle)
        targets = outputs_of(block.mlp, inputs)
        hidden = outputs_of(partial(_hidden, block.mlp), inputs)
        bound = percentile_of_positive(hidden, config.percentile)
        rest = logits_from(original, number + 1)
        importance = _importance(rest, block.ls2, middle, targets, reference)
        _fit(config, twin_blocks[number].mlp, inputs, targets, bound, importance, batch_size)
        stream = middle + outputs_of(block.ls2, targets)


def percentile_of_positive(hidden: Tensor, percentile: float) -> float:
    """The value below which that share of the positive entries of a tensor is; 0 without any."""
    positive = hidden[hidden > 0]
    rank = max(-int(-percentile * len(positive) // 1), 1)
    return float(positive.kthvalue(rank).values) if len(positive) else 0.0


def _attended(block: Any, tokens: Tensor) -> Tensor:
    """Tokens [b, n, width] after the attention of a block, where its MLP branches off."""
    attended: Tensor = tokens + block.ls1(block.attn(block.norm1(tokens)))
    return attended


def _hidden(mlp: Any, tokens: Tensor) -> Tensor:
    """Activations [b, n, hidden] of normed tokens [b, n, width]."""
    hidden: Tensor = mlp.act(mlp.fc1(tokens))
    return hidden


def _importance(
    rest: Any, scale: Any, middle: Tensor, targets: Tensor, reference: Tensor
) -> Tensor:
    """Of an MLP's outputs, averaged over images and with a mean square of 1: [n, width]"""
    count, parts = len(reference), []
    for start in range(0, count, _BATCH):
        chosen = slice(start, min(start + _BATCH, count))

        def logits(added: Tensor, tokens: Tensor = middle[chosen]) -> Tensor:
            return rest(tokens + scale(added))

        parts.append(perturbation_importance(logits, targets[chosen], reference[chosen]))
    mean = torch.cat(parts).mean(0)
    return mean / mean.square().mean().sqrt().clamp(min=torch.finfo(mean.dtype).tiny)


def _fit(
    config: ReluMlps,
    mlp: Any,
    inputs: Tensor,
    targets: Tensor,
    bound: float,
    importance: Tensor,
    batch_size: int,
) -> None:
    """Fit an MLP of the twin, its weights not quantized, to targets [images, n, width]."""
    weights = [mlp.fc1.weight.values, mlp.fc1.bias, mlp.fc2.weight.values, mlp.fc2.bias]

    def both(batch: Tensor) -> Tensor:
        """Outputs with all hidden units, and with clipped ones: [b, 2, n, width]"""
        hidden = F.relu(F.linear(batch, weights[0], weights[1]))
        forms = torch.stack([hidden, hidden.clamp(max=bound)], dim=1)
        return F.linear(forms, weights[2], weights[3])

    def loss(outputs: Tensor, expected: Tensor) -> Tensor:
        errors = (outputs - expected.unsqueeze(1)).square() * importance
        return errors[:, 0].mean() + _CLIPPED * errors[:, 1].mean()

    with training(weights):
        reconstruct(
            both,
            inputs,
            targets,
            loss,
            [{"params": weights, "lr": config.mlp_lr}],
            steps=config.mlp_steps,
            batch_size=batch_size,
        )
