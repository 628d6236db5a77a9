"""Groups of parameters that are trained differently: by rate, and with weight decay or without."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from vitarium.blueprint import Recipe
from vitarium.training.base import RATE

_TOKENS = ("pos_embed", "token", "prompts")


def parameter_groups(model: nn.Module, recipe: Recipe) -> Iterable[Any]:
    """The parameters that learn as an optimizer takes them: a list, or groups with settings."""
    adaptation = recipe.adaptation
    shares = adaptation.facts["rates"]
    rates = shares(adaptation.config, model) if shares else {}
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = recipe.weight_decay_on == "all" or is_matrix(name, parameter)
            groups.setdefault((rates.get(name, 1.0), decays), []).append(parameter)
    if list(groups) == [(1.0, True)]:
        return groups[1.0, True]
    return [
        {"params": parameters, RATE: rate} | ({} if decays else {"weight_decay": 0.0})
        for (rate, decays), parameters in groups.items()
    ]


def is_matrix(name: str, parameter: Tensor) -> bool:
    """Whether weight decay counts as timm has it: of what is no norm, bias, position or token."""
    leaf = name.rpartition(".")[2]
    return parameter.ndim > 1 and not any(part in leaf for part in _TOKENS)
