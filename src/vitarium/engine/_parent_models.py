"""Parents of models that are not trained yet, without memory: what will be started from."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vitarium.blueprint import Imported, ModelSpec, Plan, Recipe
from vitarium.blueprint.parents import Parent, start_architecture
from vitarium.core.devices import meta_device
from vitarium.core.errors import NotAZoo, UnknownName
from vitarium.engine.tuning.model_size import num_outputs
from vitarium.zoo import Zoo


class Hollow(NamedTuple):
    """Weights that take no memory, [*shape] by name, and the module that they are of.

    The module is on the meta device; None where nothing here builds it.
    """

    weights: Mapping[str, Tensor]
    model: nn.Module | None


class ParentModels:
    """Parents of a plan's models, in the plan itself or in the zoo of that folder."""

    def __init__(self, folder: Zoo | str | Path | None, data_dir: Path | None) -> None:
        self.folder, self.data_dir = folder, data_dir
        self.planned: dict[str, Recipe] = {}
        """By id, models that are trained before those that start from them."""

    @cached_property
    def zoo(self) -> Zoo | None:
        """None where there is none yet."""
        if self.folder is None:
            return None
        try:
            return Zoo.open(self.folder)
        except NotAZoo:
            return None

    def of(self, spec: ModelSpec, plan: Plan) -> Parent | None:
        """A model's parent. Raises UnknownName where the zoo does not have it."""
        if spec.parent is None:
            return None
        if spec.parent in plan:
            return _planned(spec.parent, plan[spec.parent].recipe)
        if self.zoo is None:
            raise UnknownName("model", spec.parent, [])
        return Parent(spec.parent, self.zoo.spec(spec.parent).origin, (spec.parent_epoch or 0,))

    def of_plan(self, id: str) -> Parent:
        """One of `planned`, with all epochs that its recipe keeps."""
        return _planned(id, self.planned[id])

    def start(self, spec: ModelSpec, parent: Parent) -> Hollow:
        """What a model starts from: its parent, as the spec's operator changes it.

        Raises as an operator does that cannot change it, InvalidInput and CorruptFile.
        """
        if spec.conversion is None:
            return self.hollow(parent, spec.parent_epoch or 0)
        architecture = start_architecture(parent.origin, spec.conversion)
        converted = parent.origin.changed({"architecture": architecture})
        return _built(converted, self._num_outputs(parent))

    def hollow(self, parent: Parent, epoch: int) -> Hollow:
        """The parent itself; of one in the zoo, with the shapes of its checkpoint."""
        architecture = parent.origin.architecture
        is_built = architecture is not None and not architecture.is_missing
        built = _built(parent.origin, self._num_outputs(parent)) if is_built else None
        if built and (parent.id in self.planned or parent.num_outputs is not None):
            return built
        assert self.zoo  # which has found it
        stored = self.zoo.checkpoint(parent.id, epoch).tensors
        shapes = {name: torch.zeros(()).expand(tensor.shape) for name, tensor in stored.items()}
        return Hollow(shapes, built and built.model)

    def _num_outputs(self, parent: Parent) -> int:
        """1 where that depends on data that is not here."""
        if parent.num_outputs is not None:
            return parent.num_outputs
        if recipe := self.planned.get(parent.id):
            return num_outputs(recipe, self.data_dir) or 1
        assert self.zoo
        return self.zoo.folder(parent.id).about().num_outputs


def _planned(id: str, recipe: Recipe) -> Parent:
    return Parent(id, recipe, tuple(recipe.kept_epochs))


def _built(origin: Recipe | Imported, outputs: int) -> Hollow:
    with meta_device():
        model = origin.build(outputs)
    tensors = model.state_dict().items()
    return Hollow({n: torch.zeros((), dtype=t.dtype).expand(t.shape) for n, t in tensors}, model)
