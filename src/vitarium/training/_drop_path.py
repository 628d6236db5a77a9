"""Stochastic depth whose rates change while a model is trained."""

from timm.layers.drop import DropPath
from torch import nn

from vitarium.blueprint import Recipe
from vitarium.core.errors import InvalidInput


class DropPathSchedule:
    """Scales the rates of a model's stochastic depth, as its recipe says.

    Raises InvalidInput where the recipe has a schedule, and the model nothing to schedule.
    """

    def __init__(self, model: nn.Module, recipe: Recipe) -> None:
        self.schedule = recipe.drop_path_schedule
        self._rates = [(m, m.drop_prob) for m in model.modules() if isinstance(m, DropPath)]
        if self.schedule != "constant" and not self._rates:
            name = recipe.architecture.name
            raise InvalidInput(
                f"drop_path_schedule: no block of this {name} has stochastic depth (the first has "
                "none); leave it out"
            )

    def enter(self, share: float) -> None:
        """Set the rates for a step, when a share of all steps, from 0 to 1, is done."""
        if self.schedule == "constant":
            return
        scale = share if self.schedule == "linear_increase" else 1 - share
        for module, rate in self._rates:
            module.drop_prob = scale * rate
