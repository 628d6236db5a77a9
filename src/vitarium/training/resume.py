"""Resuming: the training state, weights and the optimizer's state, as plain tensors by name."""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vitarium.blueprint import Recipe

MODEL, OPTIMIZER = "model/", "optimizer/"


def take_progress(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """Weights as `model/<name>`, optimizer state as `optimizer/<parameter's number>/<name>`.

    Tensors [*shape] by name. The settings come from the recipe, the learning rate from the step.
    """
    weights = {MODEL + name: tensor for name, tensor in model.state_dict().items()}
    state = {
        f"{OPTIMIZER}{number}/{name}": value
        for number, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
        if isinstance(value, Tensor)
    }
    return weights | state


def restore_progress(
    model: nn.Module, optimizer: Optimizer, progress: Mapping[str, Tensor]
) -> None:
    """Restore what `take_progress` took of the same model and optimizer: [*shape] by name."""
    model.load_state_dict(weights_of(progress), strict=True)
    state: dict[int, dict[str, Tensor]] = {}
    for path, tensor in progress.items():
        if path.startswith(OPTIMIZER):
            number, name = path.removeprefix(OPTIMIZER).split("/")
            # a copy, so that it is aligned in memory as in an unbroken run
            state.setdefault(int(number), {})[name] = tensor.clone()
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def weights_of(progress: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The model's weights in what `take_progress` took: [*shape] by their own names."""
    return {n.removeprefix(MODEL): t for n, t in progress.items() if n.startswith(MODEL)}


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
