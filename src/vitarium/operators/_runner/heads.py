"""What becomes of the heads, which belong to data sets and may be of different shapes."""

from collections.abc import Sequence

import torch
from torch import Tensor

from vitarium.architectures.heads import head_prefix
from vitarium.blueprint import CheckpointRef
from vitarium.core.errors import IncompatibleWeights, InvalidInput
from vitarium.core.parameters import parameter
from vitarium.core.registry import Section, choose
from vitarium.evaluation.batch_statistics import joined
from vitarium.evaluation.inputs import Weights
from vitarium.evaluation.loader import ModelLoader
from vitarium.evaluation.weight_subset import WeightSubset
from vitarium.operators._runner.buffers import widest
from vitarium.operators.base import check_alike

CHOICES = ("merge", "average", "ensemble")


def _keep_one() -> str:
    return f"say what becomes of the heads: {parameter('heads', 'ID')} keeps that model's"


def _keep_one_or_all() -> str:
    ensemble = parameter("heads", "ensemble")
    return f"{_keep_one()}, {ensemble} keeps all and gives the mean of their outputs"


class Heads:
    """How the heads of models are combined, by one of `CHOICES` or a model, `ID` or `ID@3`.

    Raises IncompatibleWeights for heads that cannot be combined so, UnknownName.
    """

    def __init__(
        self, loader: ModelLoader, refs: Sequence[CheckpointRef], models: list[Weights], choice: str
    ) -> None:
        self.choice, self._models = choice, models
        self.origin: CheckpointRef | None = None
        """The model whose head is kept."""
        self.label: str | None = None if choice == "merge" else choice
        """As it stands in the result's spec."""
        self.changes: dict[str, Section] = {}
        """Of the recipe."""
        zoo = loader.zoo
        classes = {ref.model: zoo.folder(ref.model).about().classes for ref in refs}
        first_id = refs[0].model
        if choice not in CHOICES:
            self.origin = zoo.at(choice)
            self.label = str(self.origin)
            self._models = [loader.weights(self.origin)]
        for id in classes if choice in CHOICES else ():
            # they have nothing in common, though they may be of equal shape
            if classes[id] != classes[first_id]:
                advice = _keep_one()
                raise IncompatibleWeights(f"{first_id} and {id} have different classes; {advice}")
        if choice == "ensemble":
            heads = []
            for ref in refs:
                head = zoo.folder(ref.model).spec().origin.head
                if head is None:
                    raise InvalidInput(f"{ref.model}: no ensemble of a head of unknown settings")
                heads.append(head.factors())
            if hasattr(models[0].skeleton, "exit_prefixes"):
                raise IncompatibleWeights(
                    f"{first_id} has early exits, of which there is no ensemble; {_keep_one()}"
                )
            self.changes["head"] = choose("head", "ensemble", heads=heads)
        elif zoo.folder(refs[0].model).spec().origin.architecture:
            first, *rest = [WeightSubset(weights, head=True) for weights in self._models]
            for other_head in rest:
                try:
                    check_alike(first, other_head)
                except IncompatibleWeights as error:
                    raise IncompatibleWeights(f"{error}; {_keep_one_or_all()}") from None

    @property
    def shared(self) -> bool:
        """Whether all models' heads have to be of one architecture: they become one."""
        return self.choice in ("merge", "average")

    @property
    def separate(self) -> bool:
        """Whether the heads are no matter of the operator."""
        return self.choice != "merge"

    def backbone(self, model: Weights) -> Weights:
        """What the operator is to combine of a model."""
        return WeightSubset(model, head=False) if self.separate else model

    def tensors(self) -> dict[str, Tensor]:
        """Tensors [*shape] of the merged head by name; empty where the operator merges heads."""
        if not self.separate:
            return {}
        heads = [dict(WeightSubset(model, head=True)) for model in self._models]
        if self.choice == "ensemble":
            at = head_prefix(self._models[0].skeleton)
            return {
                f"{at}.{number}{name.removeprefix(at)}": tensor
                for number, head in enumerate(heads)
                for name, tensor in head.items()
            }
        if len(heads) == 1:
            return heads[0]
        statistics = joined(
            [WeightSubset(model, head=True) for model in self._models],
            [1 / len(heads)] * len(heads),
        )
        means = {
            name: torch.stack([head[name].double() for head in heads]).mean(0)
            if tensor.is_floating_point()
            else tensor
            for name, tensor in heads[0].items()
            if name not in statistics
        }
        dtypes = {name: widest([head[name].dtype for head in heads]) for name in heads[0]}
        return {name: t.to(dtypes[name]) for name, t in (means | statistics).items()}
