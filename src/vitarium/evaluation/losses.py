"""Loss of a model at its own or at other parameters: mean cross-entropy of labels, in nats.

The model is never changed: it is called with other parameters (torch.func.functional_call).
"""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from vitarium.evaluation.data import EvalData

Parameters = Mapping[str, Tensor]
"""By the names of `model.named_parameters()`."""


class Losses(NamedTuple):
    """Losses and errors of models on the same images; float64 [models], on the CPU."""

    loss: Tensor
    """Mean cross-entropy, nats"""
    error: Tensor
    """Share of misclassified images"""


def parameters(model: nn.Module) -> dict[str, Tensor]:
    """The model's parameters [*shape] by name, without a copy."""
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


@torch.no_grad()
def losses(
    model: nn.Module,
    points: Callable[[], Iterable[Parameters]],
    examples: EvalData,
    batch_size: int = 256,
) -> Losses:
    """Losses [points] of a model at other parameters than its own.

    `points` gives one set after the other. It is called for every batch, so that images are
    decoded once, and one set alone is in memory at a time.
    """
    total: Tensor | float = 0.0
    for batch in examples.batches(batch_size):
        sums = []
        for point in points():
            logits = functional_call(model, dict(point), (batch.images,)).double()
            wrong = (logits.argmax(1) != batch.labels).sum()
            nats = F.cross_entropy(logits, batch.labels, reduction="sum")
            sums.append(torch.stack([nats, wrong]))
        total = total + torch.stack(sums)
    loss, error = (torch.as_tensor(total).cpu() / len(examples)).unbind(1)
    return Losses(loss, error)


def gradient(
    model: nn.Module, examples: EvalData, batch_size: int = 256
) -> tuple[float, dict[str, Tensor]]:
    """The loss of a model, and its gradient by name, in the parameters' shapes [*shape]."""
    point = {name: tensor.requires_grad_() for name, tensor in parameters(model).items()}
    total, sums = 0.0, {name: torch.zeros_like(tensor) for name, tensor in point.items()}
    for batch in examples.batches(batch_size):
        with torch.enable_grad():
            value = mean_loss(model, point, batch.images, batch.labels)
            slopes = gradients(value, list(point.values()))
        share = len(batch.labels) / len(examples)
        total += share * value.item()
        for accumulator, tensor in zip(sums.values(), slopes, strict=True):
            accumulator.add_(tensor, alpha=share)
    return total, sums


def mean_loss(model: nn.Module, point: Parameters, images: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of images [b, c, h, w] with labels [b]; float64, differentiable."""
    return F.cross_entropy(functional_call(model, dict(point), (images,)).double(), labels)


def gradients(value: Tensor, of: list[Tensor], create_graph: bool = False) -> tuple[Tensor, ...]:
    """Gradient of a scalar [] after tensors [*shape]; zeros where it does not depend on one."""
    return torch.autograd.grad(
        value, of, create_graph=create_graph, allow_unused=True, materialize_grads=True
    )
