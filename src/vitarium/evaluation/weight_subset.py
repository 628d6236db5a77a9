"""A model's head, or its backbone: all but that."""

from collections.abc import Iterator

from vitarium.architectures.heads import is_head
from vitarium.core.errors import NotApplicable
from vitarium.evaluation.inputs import Weights


def backbone(weights: Weights) -> Weights:
    """All but the head's weights; all of them where the model's architecture is not known."""
    try:
        return WeightSubset(weights, head=False)
    except NotApplicable:
        return weights


class WeightSubset(Weights):
    """A model's head, or all but that."""

    def __init__(self, model: Weights, *, head: bool) -> None:
        super().__init__(model.name, model, skeleton=lambda: model.skeleton, origin=model.origin)
        self._names = [name for name in model if is_head(model.skeleton, name) == head]
        self.shapes = {name: model.shapes[name] for name in self._names if name in model.shapes}

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
