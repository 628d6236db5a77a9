"""The contract of adaptations: what of a model learns, and in which form."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from torch import Tensor, nn

from vitarium.core.registry import contract, register

Adapt = TypeVar("Adapt", bound=Callable[[Any, nn.Module], None])
Merge = Callable[[Any, str, Tensor, Mapping[str, Tensor]], Tensor]
"""`(config, name, weight [*shape], factors) -> weight [*shape]`"""
Rates = Callable[[Any, nn.Module], Mapping[str, float]]
"""`(config, model) -> by parameter name, the share of the learning rate`"""
Penalty = Callable[[Any, nn.Module, Mapping[str, Tensor]], Tensor]
"""`(config, model, start weights by name) -> scalar`"""


@contract
def adaptation(
    name: str,
    *,
    title: str,
    paper: str = "",
    needs_parent: bool = True,
    adds_modules: bool = False,
    starts_as_parent: bool = True,
    merge: Merge | None = None,
    rates: Rates | None = None,
    penalty: Penalty | None = None,
    frozen_in_eval_mode: bool = False,
    stackable: bool = False,
    training_factors: Sequence[str] = (),
    tiny: Mapping[str, Any] | None = None,
) -> Callable[[Adapt], Adapt]:
    """Register an adaptation: a function `(config, model) -> None` that prepares a model in place.

    The model is plain, with the weights that training starts from and its head. The function says
    by `requires_grad` what learns, and may add parameters, drawn from torch's global generator
    alone, which is seeded before. It runs on the meta device, too, and raises InvalidInput for a
    model that it does not go with.

    Args:
        title: what the method is called in tables and figures, e.g. "LoRA".
        paper: authors, year and arXiv number, or an address.
        needs_parent: it changes weights that were trained before; refused from scratch.
        adds_modules: the function of the adapted model is none that a plain model of the
            architecture has: prompts, adapters. Its module computes with them, under names without
            `.adaptation.`; nothing merges them, and only models of the same adaptation start from
            such a model, with its modules. Else what it adds are factors of a change of plain
            weights, by names `MODULE.adaptation.FACTOR` (`_factors.py`), and `merge` is needed.
        starts_as_parent: at its start the adapted model computes what it did, to rounding.
        merge: gives a plain weight [*shape] of the frozen one, by its name, and of all factors of
            the model, by theirs. Called only for weights whose module has factors.
        rates: shares of the learning rate by parameter; 1 for those that it does not name.
        penalty: is added to the loss at each step, after the forward pass; the start weights
            [*shape] are those of what learns and was not drawn anew (the head).
        frozen_in_eval_mode: the backbone is in eval mode while it trains: its features are what
            they will be. Modules that learn as a whole, the head among them, are in training mode.
        stackable: models can be trained in a stack: no rates, no penalty, nothing that acts by
            itself. Where settings add a dropout, that is noticed.
        training_factors: settings that act in training alone: of what `adds_modules`, models that
            differ in nothing else compute the same function of their weights, and can be merged.
        tiny: settings for the contract tests, on a ViT of 2 blocks of width 16; None: the defaults.

    `vitarium.testing.check_adaptation(name)` tests all of it.

    Raises ValueError where `stackable` is said of one with rates or a penalty.
    """
    facts = dict(locals())  # its arguments
    if stackable and (rates or penalty):
        raise ValueError(f"adaptation '{name}': with rates or a penalty it is not stackable")
    return register("adaptation", **facts)
