"""How much a model needs the units of its structures: first-order saliency, movement, magnitude."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import torch
from pydantic import NonNegativeFloat, NonNegativeInt
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from vitarium.architectures.symmetries.base import Symmetries
from vitarium.core.seeds import derive
from vitarium.evaluation.inputs import EvalModel
from vitarium.operators.compression._calibration import Calibration
from vitarium.operators.compression.pruning._structures import unit_sums

Importance = Literal["taylor", "magnitude", "movement", "random"]


class Saliency(Calibration):
    importance: Importance = "taylor"
    """What units are ranked by: the squared sum of weight times gradient, mean over batches
    (taylor); the sum of squared weights (magnitude); by how much a short training moves weights
    away from zero (movement); or at random, to compare with."""
    movement_lr: NonNegativeFloat = 0.01
    """Learning rate of SGD on a copy of the model, by which movement is summed."""
    seed: NonNegativeInt = 0
    """Random seed of the random choice."""


def unit_scores(
    config: Saliency, subject: EvalModel, symmetries: Symmetries, groups: Sequence[str]
) -> dict[str, Tensor]:
    """By group, how much each of its units is needed, float64 [units]: more is more.

    Raises NotApplicable where gradients are needed of a model whose outputs are not the classes of
    its data.
    """
    parameters = {name: p.detach().clone() for name, p in subject.model.named_parameters()}

    def sums(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {group: unit_sums(symmetries, values, group) for group in groups}

    if config.importance == "random":
        return {group: _random(config.seed, group, symmetries) for group in groups}
    if config.importance == "magnitude":
        return sums({name: parameter.square() for name, parameter in parameters.items()})
    moves = config.importance == "movement"
    totals = {group: torch.zeros(symmetries.groups[group].size).double() for group in groups}
    batches = 0
    for gradients in _gradients(config, subject, parameters):
        batches += 1
        products = {name: parameters[name] * slope for name, slope in gradients.items()}
        for group, of_units in sums(products).items():
            # the first order of the loss's change without the unit; or minus w dL/dw, summed
            totals[group] += -of_units if moves else of_units.square()
        if moves:
            for name, slope in gradients.items():
                parameters[name].sub_(config.movement_lr * slope)
    return {group: total / max(batches, 1) for group, total in totals.items()}


def _gradients(
    config: Calibration, subject: EvalModel, parameters: Mapping[str, Tensor]
) -> Iterator[dict[str, Tensor]]:
    """Batch by batch, of the mean cross-entropy of the labels, at the parameters as they are."""
    subject.check_classifier()
    for batch in subject.examples.first(config.num_images).batches(config.batch_size):
        point = {name: tensor.detach().requires_grad_() for name, tensor in parameters.items()}
        with torch.enable_grad():
            outputs = functional_call(subject.model, point, (batch.images,))
            loss = F.cross_entropy(outputs, batch.labels)
            slopes = torch.autograd.grad(loss, list(point.values()), allow_unused=True)
        for tensor in parameters.values():
            tensor.requires_grad_(False)
        pairs = zip(point, slopes, strict=True)
        yield {name: slope for name, slope in pairs if slope is not None}


def _random(seed: int, group: str, symmetries: Symmetries) -> Tensor:
    generator = torch.Generator().manual_seed(derive(seed, "pruning", group))
    size = symmetries.groups[group].size
    return torch.rand(size, generator=generator, dtype=torch.float64)


def best(scores: Tensor, count: int) -> Tensor:
    """Scores [units] -> the numbers of the best, int64 [count], rising; of equal ones the first."""
    return scores.argsort(descending=True, stable=True)[:count].sort().values
