"""Slices of the loss landscape around a model, along random directions."""

from collections.abc import Iterator
from itertools import product
from typing import Literal

import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from vitarium.core.seeds import derive
from vitarium.evaluation.losses import Losses, Parameters, losses, parameters
from vitarium.measures.base import Config, EvalModel, Values, measure


class LossSlice(Config):
    dimensions: Literal[1, 2] = 1
    """1: a line; 2: a plane, of `points` squared points."""
    points: int = Field(default=11, ge=2)
    """Grid points per direction; an odd number has the model itself in the middle."""
    radius: PositiveFloat = 1.0
    """Reach of the grid in each direction; 1 is as long as the weights themselves."""
    biases: bool = False
    """Also move biases, and the scales and shifts of norms."""
    seed: NonNegativeInt = 0
    """Random seed of the directions; models with the same shapes are moved along the same random
    numbers."""
    num_images: PositiveInt = 256
    """Largest number of images of the split to use."""
    batch_size: PositiveInt = 256
    """Images per forward pass; affects memory and speed only."""

    @property
    def coordinates(self) -> list[float]:
        """Of the grid's points in one direction: from -radius to radius."""
        last = self.points - 1
        return [self.radius * (2 * index - last) / last for index in range(self.points)]


@measure(
    "loss_slice",
    unit="nats",
    quick=False,
    paper="Li et al. 2018, arXiv 1712.09913",
    tiny={"points": 3},
)
def loss_slice(config: LossSlice, subject: EvalModel) -> Values:
    """Loss on a grid around the model, along filter-normalized random directions.

    Parts: coordinates, "x" of a line ("-0.2") and "x,y" of a plane ("-0.2,0.4").
    """
    grid = product(config.coordinates, repeat=config.dimensions)
    grid_losses = slice_losses(subject, config).loss.flatten().tolist()
    return {
        ",".join(f"{x:.6g}" for x in point): value
        for point, value in zip(grid, grid_losses, strict=True)
    }


def slice_losses(subject: EvalModel, config: LossSlice | None = None) -> Losses:
    """Loss and error at `config.coordinates`, each [points] or [points, points]: x, then y."""
    config = config or LossSlice()
    subject.check_classifier()
    weights = parameters(subject.model)
    axes = [direction(weights, config, axis) for axis in range(config.dimensions)]

    def points() -> Iterator[Parameters]:
        for point in product(config.coordinates, repeat=config.dimensions):
            moved = dict(weights)
            for axis, distance in zip(axes, point, strict=True):
                for name, step in axis.items():
                    moved[name] = torch.add(moved[name], step, alpha=distance)
            yield moved

    examples = subject.examples.first(config.num_images)
    grid_losses = losses(subject.model, points, examples, config.batch_size)
    shape = [config.points] * config.dimensions
    return Losses(grid_losses.loss.view(shape), grid_losses.error.view(shape))


def direction(weights: Parameters, config: LossSlice, axis: int = 0) -> dict[str, Tensor]:
    """A random direction in which every filter is as long as the weights' own (Sec. 4).

    A filter is a row of a matrix, an output channel of a convolution, or a token of an embedding
    [1, tokens, width]. Vectors, which are biases and norms, are left out, or count as one filter.
    """
    steps = {}
    for name, tensor in weights.items():
        if tensor.ndim > 1 or config.biases:
            generator = torch.Generator().manual_seed(derive(config.seed, "loss_slice", axis, name))
            by_filter = _filters(torch.randn(tensor.shape, generator=generator).to(tensor))
            lengths = torch.linalg.vector_norm(_filters(tensor), dim=1, keepdim=True)
            drawn_lengths = torch.linalg.vector_norm(by_filter, dim=1, keepdim=True)
            steps[name] = (by_filter * (lengths / drawn_lengths)).view_as(tensor)
    return steps


def _filters(tensor: Tensor) -> Tensor:
    """[filters, size]"""
    if tensor.ndim < 2:
        return tensor.reshape(1, -1)
    token = tensor.ndim == 3 and len(tensor) == 1
    return tensor.flatten(1) if not token else tensor[0]
