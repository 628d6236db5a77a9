"""What becomes of the heads, which belong to data sets and may be of different shapes."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from vitarium.architectures.heads import head_prefix, is_head
from vitarium.blueprint import CheckpointRef
from vitarium.core.errors import IncompatibleWeights, InvalidInput
from vitarium.core.registry import Section, choose
from vitarium.evaluation.inputs import Weights
from vitarium.evaluation.loader import ModelLoader
from vitarium.operators.base import check_alike

CHOICES = ("merge", "average", "ensemble")
_KEEP = "say what becomes of the heads: --heads ID keeps that model's"
_ADVICE = f"{_KEEP}, --heads ensemble keeps all and gives the mean of their outputs"


class Heads:
    """How the heads of models are combined: see `operators._runner.merge.merge`.

    Args:
        choice: "merge", "average", "ensemble", or a model, `ID` or `ID@3`.

    Raises IncompatibleWeights for heads that cannot be combined so, UnknownName.
    """

    def __init__(
        self,
        sources: ModelLoader,
        chosen: Sequence[CheckpointRef],
        models: Sequence[Weights],
        choice: str = "merge",
    ) -> None:
        self.choice, self._sources, self._models = choice, sources, models
        self.origin: CheckpointRef | None = None
        """The model whose head is kept."""
        self.label: str | None = None if choice == "merge" else choice
        """As it stands in the result's spec."""
        self.changes: dict[str, Section] = {}
        """Of the recipe."""
        self._heads = list(models)
        if choice not in CHOICES:
            id, epoch = sources.zoo.at(choice)
            self.origin, self.label = CheckpointRef(model=id, epoch=epoch), f"{id}@{epoch}"
            self._heads = [sources.weights(self.origin)]
        else:
            _check_classes(sources, chosen)
        if choice == "ensemble":
            self.changes["head"] = _ensemble(sources, chosen)
        elif sources.zoo.folder(chosen[0].model).spec().origin.architecture:
            self._check_shapes()

    @property
    def separate(self) -> bool:
        """Whether the heads are no matter of the operator."""
        return self.choice != "merge"

    def backbone(self, model: Weights) -> Weights:
        """What the operator is to combine of a model."""
        if not self.separate:
            return model
        return WeightSubset(model, [n for n in model if not is_head(model.skeleton, n)])

    def tensors(self) -> dict[str, Tensor]:
        """Tensors [*shape] of the merged head by name; empty where the operator merges heads."""
        if not self.separate:
            return {}
        heads = [{n: m[n] for n in m if is_head(m.skeleton, n)} for m in self._heads]
        if self.choice == "ensemble":
            at = head_prefix(self._models[0].skeleton)
            return {
                f"{at}.{number}{name.removeprefix(at)}": tensor
                for number, head in enumerate(heads)
                for name, tensor in head.items()
            }
        if len(heads) == 1:
            return heads[0]
        return {
            name: torch.stack([head[name] for head in heads]).double().mean(0).to(tensor.dtype)
            for name, tensor in heads[0].items()
        }

    def _check_shapes(self) -> None:
        first, *rest = [
            WeightSubset(m, [n for n in m if is_head(m.skeleton, n)]) for m in self._heads
        ]
        for model in rest:
            try:
                check_alike(first, model)
            except IncompatibleWeights as error:
                raise IncompatibleWeights(f"{error}; {_ADVICE}") from None


class WeightSubset(Weights):
    """Some of a model's tensors."""

    def __init__(self, model: Weights, names: Sequence[str]) -> None:
        super().__init__(model.name, model, skeleton=lambda: model.skeleton)
        self._names = list(names)
        self.shapes = {name: model.shapes[name] for name in names if name in model.shapes}

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _check_classes(sources: ModelLoader, chosen: Sequence[CheckpointRef]) -> None:
    """Heads of other classes have nothing in common, though they may be of equal shape."""
    first, *rest = [ingredient.model for ingredient in chosen]
    classes = sources.zoo.folder(first).about().classes
    for model in rest:
        if sources.zoo.folder(model).about().classes != classes:
            raise IncompatibleWeights(f"{first} and {model} tell different classes apart; {_KEEP}")


def _ensemble(sources: ModelLoader, chosen: Sequence[CheckpointRef]) -> Section:
    heads = []
    for ingredient in chosen:
        head = sources.zoo.folder(ingredient.model).spec().origin.head
        if head is None:
            raise InvalidInput(
                f"{ingredient.model}: how its head is built is not known: no ensemble of it"
            )
        heads.append(head.factors())
    return choose("head", "ensemble", heads=heads)
