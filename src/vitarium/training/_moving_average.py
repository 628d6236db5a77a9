"""A moving average of a model's weights, kept beside them while it is trained."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from vitarium.blueprint.moving_average import Ema


class MovingAverage:
    """Averages of the weights that learn, and buffers as they are.

    weights: [*shape] by the names of the model's state_dict.
    """

    def __init__(self, model: nn.Module, settings: Ema) -> None:
        self.model, self.settings = model, settings
        self.weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after a step, counted from 0."""
        averages: list[Tensor] = []
        learning: list[Tensor] = []
        for name, tensor in self.model.state_dict(keep_vars=True).items():
            if not isinstance(tensor, nn.Parameter):
                self.weights[name].copy_(tensor)
            elif tensor.requires_grad:
                averages.append(self.weights[name])
                learning.append(tensor)
        torch._foreach_lerp_(averages, learning, 1 - self.settings.decay_at(step))

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the model has the averages as its weights; then its own again, bit by bit."""
        trained = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        self.model.load_state_dict(self.weights)
        try:
            yield
        finally:
            self.model.load_state_dict(trained)

    def restore(self, weights: Mapping[str, Tensor]) -> None:
        """Take up averages [*shape] by name."""
        for name, tensor in self.weights.items():
            tensor.copy_(weights[name])
