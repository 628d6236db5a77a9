"""Every optimizer of timm that goes on from what it saved."""

from collections.abc import Iterable
from typing import Any, Self

import torch
from pydantic import JsonValue, NonNegativeFloat, PositiveFloat, model_validator
from timm.optim import create_optimizer_v2, list_optimizers  # type: ignore[attr-defined]
from torch import nn
from torch.optim import Optimizer

from vitarium.core.config import Config, InvalidConfig, Problem
from vitarium.core.errors import UnknownName
from vitarium.training.base import optimizer
from vitarium.training.optimizers.muon import MAX_NS_STEPS

_REFUSED = {
    "adahessian": "it needs second derivatives, which training does not compute",
    "bnb": "it needs bitsandbytes, whose state is packed",
    "fused": "it needs NVIDIA's apex",
    "kron": "it draws random numbers of its own, so that a resumed run would take other steps",
}
"""Why those whose names begin so are no choice here."""
_BESIDE, _GROUPS = "write it beside `options`", "choose the adaptation `layer_decay`"
_FALLBACK = "by their shape, weights get the fallback's steps"
_ELSEWHERE = {
    "lr": _BESIDE,
    "weight_decay": _BESIDE,
    "filter_bias_and_bn": "write `weight_decay_on: matrices` in the stage",
    "weight_decay_exclude_1d": "write `weight_decay_on: matrices` in the stage",
    "layer_decay": _GROUPS,
    "layer_decay_min_scale": _GROUPS,
    "layer_decay_no_opt_scale": _GROUPS,
    "fallback_list": _FALLBACK,
    "fallback_no_weight_decay": _FALLBACK,
    "param_group_fn": "groups of weights are those of the adaptation and of `weight_decay_on`",
}
"""What timm takes in the same call, and would not heed: it would group a model's weights, which
come here in groups."""


class TimmOptimizer(Config):
    """An optimizer of timm by its name there, such as nadamw, adopt, mars, laprop or lars."""

    optimizer: str
    """Its name in `timm.optim.list_optimizers()`."""
    lr: PositiveFloat = 1e-3
    """Peak learning rate; the schedule multiplies it."""
    weight_decay: NonNegativeFloat = 0.0
    """As that optimizer means it, of all weights."""
    options: dict[str, JsonValue] = {}
    """Its other settings, by the names of timm: `{betas: [0.9, 0.99], caution: true}`."""

    def __hash__(self) -> int:  # pydantic's would need hashable options
        return hash(self.model_dump_json())

    @model_validator(mode="after")
    def _exists_with_these_options(self) -> Self:
        if problem := self._problem():
            raise InvalidConfig([problem])
        return self

    def _problem(self) -> Problem | None:
        if self.optimizer not in (names := usable_optimizers()):
            reasons = (why for start, why in _REFUSED.items() if self.optimizer.startswith(start))
            message = str(UnknownName("optimizer of timm", self.optimizer, names))
            if reason := next(reasons, ""):
                message = f"'{self.optimizer}' cannot be used here: {reason}"
            return Problem(("optimizer",), message)
        for name in sorted(_ELSEWHERE.keys() & self.options.keys()):
            return Problem(("options", name), f"it is no option: {_ELSEWHERE[name]}")
        iterations = self.options.get("ns_steps", 0)
        if isinstance(iterations, int | float) and iterations > MAX_NS_STEPS:
            return Problem(("options", "ns_steps"), f"{iterations} is more than {MAX_NS_STEPS}")
        try:
            # zeros: settings may be read while a model trains, whose random stream goes on
            timm_optimizer(self, [nn.Parameter(torch.zeros(1, 1))])
        except Exception as error:  # of any kind: each of them checks its settings in its own way
            return Problem(("options",), f"timm's {self.optimizer} refuses them: {error}")
        return None


def usable_optimizers() -> list[str]:
    """Names of timm's optimizers whose whole state is tensors and numbers."""
    names = map(str, list_optimizers())
    return [name for name in names if not name.startswith(tuple(_REFUSED))]


@optimizer(
    "timm",
    paper="Wightman 2019, https://github.com/huggingface/pytorch-image-models",
    tiny={"optimizer": "nadamw", "weight_decay": 0.05},
)
def timm_optimizer(config: TimmOptimizer, parameters: Iterable[Any]) -> Optimizer:
    options: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in config.options.items()
    }
    result: Optimizer = create_optimizer_v2(
        list(parameters), config.optimizer, config.lr, config.weight_decay, **options
    )
    return result
