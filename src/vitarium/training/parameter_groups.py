"""Groups of parameters that are trained differently: by rate, and with weight decay or without."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from vitarium.architectures.base import ScalesRates
from vitarium.blueprint import Recipe
from vitarium.training.base import RATE
from vitarium.training.resume import COMPANIONS

_TOKENS = ("pos_embed", "token", "prompts")


def parameter_groups(
    model: nn.Module, recipe: Recipe, companions: nn.Module | None = None
) -> Iterable[Any]:
    """The parameters that learn as an optimizer takes them: a list, or groups with settings.

    Those of the companions have the full rate.
    """
    adaptation = recipe.adaptation
    shares = adaptation.facts["rates"]
    rates = shares(adaptation.config, model) if shares else {}
    multipliers = lr_multipliers(model)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    named = list(model.named_parameters())
    if companions is not None:
        named += [(f"{COMPANIONS}{name}", p) for name, p in companions.named_parameters()]
    undecayed = {f"{COMPANIONS}{name}" for name in never_decayed(recipe)}
    for name, parameter in named:
        if parameter.requires_grad:
            decays = recipe.weight_decay_on == "all" or is_matrix(name, parameter)
            decays = decays and name not in undecayed
            rate = rates.get(name, 1.0) * multipliers.get(name, 1.0)
            groups.setdefault((rate, decays), []).append(parameter)
    if list(groups) == [(1.0, True)]:
        return groups[1.0, True]
    return [
        {"params": parameters, RATE: rate} | ({} if decays else {"weight_decay": 0.0})
        for (rate, decays), parameters in groups.items()
    ]


def lr_multipliers(model: nn.Module) -> dict[str, float]:
    """By parameter, at what multiple of the learning rate it learns, where its model says so."""
    multipliers: dict[str, float] = {}
    for prefix, module in model.named_modules():
        if isinstance(module, ScalesRates):
            for name, multiple in module.lr_multipliers().items():
                path = f"{prefix}.{name}" if prefix else name
                multipliers[path] = multipliers.get(path, 1.0) * multiple
    return multipliers


def never_decayed(recipe: Recipe) -> tuple[str, ...]:
    """Names of the companions' parameters that an optimizer with weight decay leaves out."""
    decay = getattr(recipe.optimizer.config, "weight_decay", None)
    names: tuple[str, ...] = recipe.objective.facts["without_decay"]
    return () if decay == 0 else names


def is_matrix(name: str, parameter: Tensor) -> bool:
    """Whether weight decay counts as timm has it: of what is no norm, bias, position or token."""
    leaf = name.rpartition(".")[2]
    return parameter.ndim > 1 and not any(part in leaf for part in _TOKENS)
