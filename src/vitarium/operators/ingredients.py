"""What an operator works on: several models, tensor by tensor."""

from collections.abc import Iterator

import torch
from torch import Tensor

from vitarium.blueprint import Ingredient
from vitarium.errors import IncompatibleWeights
from vitarium.store import Zoo


class Ingredients:
    """Checkpoints of a zoo with equal names and shapes; memory holds one tensor of each at a time.

    Raises CorruptFile, and IncompatibleWeights that names the models and the tensor.
    """

    def __init__(self, zoo: Zoo, chosen: tuple[Ingredient, ...]) -> None:
        self.chosen = chosen
        self._checkpoints = [zoo.folder(one.model).open(one.epoch) for one in chosen]

    def __len__(self) -> int:
        return len(self.chosen)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Name by name, the models' tensors stacked: [models, *shape]."""
        first = self._checkpoints[0]
        for model, checkpoint in zip(self.chosen, self._checkpoints, strict=True):
            if checkpoint.keys() != first.keys():
                name = min(checkpoint.keys() ^ first.keys())
                raise self._unlike(model, name, "is in one of them alone")
        for name in first:
            tensors = [checkpoint[name] for checkpoint in self._checkpoints]
            for model, tensor in zip(self.chosen, tensors, strict=True):
                if tensor.shape != tensors[0].shape:
                    shapes = f"is {tuple(tensors[0].shape)} and {tuple(tensor.shape)}"
                    raise self._unlike(model, name, shapes)
            yield name, torch.stack(tensors)

    def _unlike(self, model: Ingredient, name: str, how: str) -> IncompatibleWeights:
        return IncompatibleWeights(
            f"models {self.chosen[0].model} and {model.model} cannot be combined: {name} {how}"
        )
