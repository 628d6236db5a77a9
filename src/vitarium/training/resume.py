"""Resuming: the training state, weights and the optimizer's state, as plain tensors by name."""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vitarium.blueprint import Recipe
from vitarium.training.base import RATE

MODEL, OPTIMIZER, AVERAGE, COMPANIONS = "model/", "optimizer/", "ema/", "companions/"
GROUP = "group"
"""Before the number of a group of parameters, where a path has a parameter's number otherwise."""
_NUMBER = "number:"
"""Before the name of a value that is a number of Python's, which is put down as a tensor []."""


def take_progress(
    model: nn.Module, optimizer: Optimizer, companions: nn.Module | None = None
) -> dict[str, Tensor]:
    """Weights as `model/<name>`, what the companions hold as `companions/<name>`, optimizer state
    as `optimizer/<parameter's number>/<name>`, and what an optimizer adds to a group as
    `optimizer/group<its number>/<name>`.

    Tensors [*shape] by name. The settings come from the recipe, the learning rate from the step.
    """
    progress = {MODEL + name: tensor for name, tensor in model.state_dict().items()}
    if companions is not None:
        progress |= {COMPANIONS + name: t for name, t in companions.state_dict().items()}
    for number, state in optimizer.state_dict()["state"].items():
        progress |= as_tensors(f"{OPTIMIZER}{number}/", state)
    for number, group in enumerate(optimizer.param_groups):
        progress |= as_tensors(f"{OPTIMIZER}{GROUP}{number}/", group_state(optimizer, group))
    return progress


def restore_progress(
    model: nn.Module,
    optimizer: Optimizer,
    progress: Mapping[str, Tensor],
    companions: nn.Module | None = None,
) -> None:
    """Restore what `take_progress` took of the same model, optimizer and companions: [*shape] by
    name."""
    model.load_state_dict(weights_of(progress), strict=True)
    if companions is not None:
        companions.load_state_dict(weights_of(progress, COMPANIONS), strict=True)
    state: dict[int, dict[str, Any]] = {}
    groups = optimizer.state_dict()["param_groups"]
    for path, tensor in progress.items():
        if path.startswith(OPTIMIZER):
            number, name = path.removeprefix(OPTIMIZER).split("/")
            entry = from_tensor(name, tensor)
            if number.startswith(GROUP):
                groups[int(number.removeprefix(GROUP))].update(entry)
            else:
                state.setdefault(int(number), {}).update(entry)
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def group_state(optimizer: Optimizer, group: Mapping[str, Any]) -> dict[str, Any]:
    """What an optimizer added to a group of its parameters while it took steps, by name."""
    settings = {"params", RATE, *optimizer.defaults}
    return {name: value for name, value in group.items() if name not in settings}


def as_tensors(prefix: str, state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Tensors [*shape] and numbers of an optimizer's state as tensors by path; no None.

    Raises TypeError for anything else: it would be missing in a run that is resumed.
    """
    tensors = {}
    for name, value in state.items():
        if isinstance(value, Tensor):
            tensors[prefix + name] = value
        elif isinstance(value, bool | int | float):
            dtype = torch.float64 if isinstance(value, float) else None
            tensors[f"{prefix}{_NUMBER}{name}"] = torch.tensor(value, dtype=dtype)
        elif value is not None:
            raise TypeError(f"optimizer state '{name}' is neither tensor nor number: {value!r}")
    return tensors


def from_tensor(name: str, tensor: Tensor) -> dict[str, Any]:
    """The entry of a state that `as_tensors` made a tensor [*shape] of, by its own name."""
    if name.startswith(_NUMBER):
        return {name.removeprefix(_NUMBER): tensor.item()}
    # a copy, so that it is aligned in memory as in an unbroken run
    return {name: tensor.clone()}


def weights_of(progress: Mapping[str, Tensor], which: str = MODEL) -> dict[str, Tensor]:
    """The weights in a training state, their AVERAGE, or what the COMPANIONS hold: [*shape] by
    their own names."""
    return {n.removeprefix(which): t for n, t in progress.items() if n.startswith(which)}


def checkpoint_of(progress: Mapping[str, Tensor], recipe: Recipe) -> dict[str, Tensor]:
    """The weights in a training state that are the epoch's checkpoint: [*shape] by name."""
    return weights_of(progress, AVERAGE if recipe.checkpoint_weights == "ema" else MODEL)


class EpochContent(NamedTuple):
    """What is written of an epoch, tensors [*shape] by name; None: nothing of the kind."""

    weights: dict[str, Tensor] | None
    progress: dict[str, Tensor] | None
    companions: dict[str, Tensor] | None


def epoch_content(
    state: Mapping[str, Tensor],
    recipe: Recipe,
    frozen: Collection[str],
    *,
    is_last: bool,
    keeps_weights: bool,
) -> EpochContent:
    """Of a training state, copies on the CPU, since training goes on while they are written."""

    def copy(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return dict(tensors) if progress else copied(tensors)

    progress = None if is_last else copied(state)
    weights = companions = None
    if keeps_weights:
        weights = rounded(copy(checkpoint_of(progress or state, recipe)), recipe, frozen)
    if recipe.keep_companions:
        companions = copy(weights_of(progress or state, COMPANIONS))
    return EpochContent(weights, progress, companions)


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, [*shape] by name."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}


def rounded(
    weights: Mapping[str, Tensor], recipe: Recipe, frozen: Collection[str] = ()
) -> dict[str, Tensor]:
    """The weights [*shape] in the precision in which the recipe keeps them.

    Those that are frozen stay as exact as the parent's, so that they need not be kept again.
    """
    if recipe.checkpoint_precision == "exact":
        return dict(weights)
    return {
        name: _rounded(tensor, keep=name in frozen) if tensor.is_floating_point() else tensor
        for name, tensor in weights.items()
    }


def _rounded(tensor: Tensor, *, keep: bool) -> Tensor:
    half = tensor.bfloat16()
    return tensor if keep and not torch.equal(half.to(tensor.dtype), tensor) else half
