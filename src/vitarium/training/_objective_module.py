"""An objective as a module: a function of tensors by name, which torch.func can map and replace."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from vitarium.core.registry import Section
from vitarium.data.batch import Batch
from vitarium.training.resume import COMPANIONS


class ObjectiveModule(nn.Module):
    """The objective as a module, so that the weights of the model and of what the objective brings
    beside it can be replaced."""

    def __init__(
        self, model: nn.Module, objective: Section, companions: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.model, self.objective, self.companions = model, objective, companions

    def forward(self, tensors: Mapping[str, Any]) -> Any:
        """Of a batch's tensors, as `Batch.tensors`: loss, metrics and statistics."""
        beside = () if self.companions is None else (self.companions,)
        loss = self.objective(self.model, Batch(**tensors), *beside)
        return loss.value, loss.metrics, loss.statistics


def name_in_objective(name: str) -> str:
    """What a weight of the layout is called in an ObjectiveModule."""
    if name.startswith(COMPANIONS):
        return f"companions.{name.removeprefix(COMPANIONS)}"
    return f"model.{name}"
