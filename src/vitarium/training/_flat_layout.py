"""Where each weight of a model lies in a row of numbers, a row being all of its weights."""

from collections.abc import Mapping
from math import prod

from torch import Tensor, nn

_ALIGNED = 16
"""Every weight starts at a multiple of 64 bytes: else how a row is aligned in memory, and with it
which of its numbers go through which instructions, would depend on its place among others."""


class FlatLayout:
    """Places of the weights in a row; those that are trained come first, as one piece.

    trained: their names, in the order in which they lie.
    trained_size, size: how many numbers they, and all weights, take.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self.trained = [name for name, p in parameters.items() if p.requires_grad]
        frozen = [name for name, p in parameters.items() if not p.requires_grad]
        self.shapes = {name: tuple(parameters[name].shape) for name in (*self.trained, *frozen)}
        self._starts: dict[str, int] = {}
        self.size = self.trained_size = 0
        for name, shape in self.shapes.items():
            self._starts[name] = self.size
            self.size += -(-prod(shape) // _ALIGNED) * _ALIGNED
            if name in self.trained:
                self.trained_size = self.size

    def view(self, rows: Tensor, name: str) -> Tensor:
        """A weight's part of a row, in its shape: [..., size] -> [..., *shape], no copy."""
        start, shape = self._starts[name], self.shapes[name]
        return rows[..., start : start + prod(shape)].view(*rows.shape[:-1], *shape)
