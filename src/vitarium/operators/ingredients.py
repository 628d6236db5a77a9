"""What an operator works on: several models, tensor by tensor."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from vitarium.blueprint import Ingredient
from vitarium.errors import IncompatibleWeights
from vitarium.store import Zoo, files


class Ingredients:
    """Checkpoints of a zoo with equal names and shapes; memory holds one tensor of each at a time.

    Raises CorruptFile, and IncompatibleWeights that names the models and the tensor.
    """

    def __init__(self, zoo: Zoo, chosen: tuple[Ingredient, ...]) -> None:
        self.chosen = chosen
        self._paths: list[Path] = []
        for one in chosen:
            folder = zoo.folder(one.model)
            number, checksum = folder.checkpoint(one.epoch)
            files.check(folder.checkpoint_path(number), checksum)
            self._paths.append(folder.checkpoint_path(number))

    def __len__(self) -> int:
        return len(self.chosen)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Name by name, the models' tensors stacked: [models, *shape]."""
        with ExitStack() as stack:
            opened = [stack.enter_context(safe_open(path, framework="pt")) for path in self._paths]
            names = [set(file.keys()) for file in opened]
            for model, have in zip(self.chosen, names, strict=True):
                if have != names[0]:
                    raise self._unlike(model, min(have ^ names[0]), "is in one of them alone")
            for name in opened[0].keys():  # noqa: SIM118 -- a file is no dictionary
                tensors = [file.get_tensor(name) for file in opened]
                for model, tensor in zip(self.chosen, tensors, strict=True):
                    if tensor.shape != tensors[0].shape:
                        shapes = f"is {tuple(tensors[0].shape)} and {tuple(tensor.shape)}"
                        raise self._unlike(model, name, shapes)
                yield name, torch.stack(tensors)

    def _unlike(self, model: Ingredient, name: str, how: str) -> IncompatibleWeights:
        return IncompatibleWeights(
            f"models {self.chosen[0].model} and {model.model} cannot be combined: {name} {how}"
        )
