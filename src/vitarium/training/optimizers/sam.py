"""Sharpness-aware minimization, around any other optimizer."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import torch
from pydantic import Field, PositiveFloat, field_validator, model_validator
from torch import Tensor
from torch.optim import Optimizer

from vitarium.core.config import Config, InvalidConfig, Problem
from vitarium.core.registry import Section, SectionOf
from vitarium.training.base import optimizer


class Sam(Config):
    """SAM: steps along the gradient at the weights nearby where the loss is highest.

    A step computes two gradients, so it takes twice the time. `lr` is that of the base.
    """

    rho: PositiveFloat = 0.05
    """Radius of the neighborhood, in the l2 norm of all weights."""
    adaptive: bool = False
    """ASAM (Kwon et al. 2021, arXiv 2102.11600): the neighborhood is measured relative to the size
    of each weight; its radius is about ten times that of SAM."""
    base: Annotated[Section, SectionOf("optimizer", "sgd")] = Field("sgd", validate_default=True)
    """The optimizer that takes the steps, with its settings."""

    @model_validator(mode="before")
    @classmethod
    def _rate_is_the_bases(cls, values: Any) -> Any:
        if isinstance(values, dict) and (names := {"lr", "weight_decay"} & values.keys()):
            fault = "a setting of the optimizer that takes the steps; write it in `base`"
            raise InvalidConfig([Problem((name,), fault) for name in sorted(names)])
        return values

    @field_validator("base", mode="after")
    @classmethod
    def _not_itself(cls, base: Section) -> Section:
        if base.name == "sam":
            raise ValueError("sam cannot be around itself; choose the optimizer that takes steps")
        return base

    @property
    def lr(self) -> float:
        """Peak learning rate of the base."""
        rate: float = self.base.config.lr
        return rate


class SharpnessAware(Optimizer):
    """A base optimizer whose gradients are to be those of the weights inside `perturbed`."""

    def __init__(self, base: Optimizer, rho: float, adaptive: bool) -> None:
        super().__init__(base.param_groups, base.defaults)
        self.base, self.rho, self.adaptive = base, rho, adaptive
        self._share_state()

    def _share_state(self) -> None:
        self.param_groups, self.state = self.base.param_groups, self.base.state

    def step(self, closure: Any = None) -> Any:
        return self.base.step(closure)

    def state_dict(self) -> dict[str, Any]:
        return self.base.state_dict()

    def load_state_dict(self, state_dict: Any) -> None:
        self.base.load_state_dict(state_dict)
        self._share_state()

    @contextmanager
    def perturbed(self) -> Iterator[None]:
        """Inside, weights lie `rho` up the gradients that they have; then where they lay before."""
        groups = self.param_groups
        weights = [p for group in groups for p in group["params"] if p.grad is not None]
        centers = [weight.detach().clone() for weight in weights]
        with torch.no_grad():
            torch._foreach_add_(weights, self._ascent(weights))
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(weights, centers)

    def _ascent(self, weights: list[Tensor]) -> list[Tensor]:
        """rho * g / |g|; adaptive: rho * w^2 g / |w g|; a tensor [*shape] per weight."""
        scaled: Any = [weight.grad for weight in weights]
        sizes: Any = torch._foreach_abs(weights) if self.adaptive else []
        if self.adaptive:
            scaled = torch._foreach_mul(scaled, sizes)
        norm = torch.stack([tensor.norm() for tensor in scaled]).norm()
        ascent: Any = torch._foreach_mul(scaled, self.rho / (norm + 1e-12))
        return list(torch._foreach_mul(ascent, sizes) if self.adaptive else ascent)


@optimizer(
    "sam",
    paper="Foret et al. 2021, arXiv 2010.01412",
    tiny={"base": {"name": "sgd", "momentum": 0.9}},
)
def sam(config: Sam, parameters: Iterable[Any]) -> Optimizer:
    return SharpnessAware(config.base(parameters), config.rho, config.adaptive)
