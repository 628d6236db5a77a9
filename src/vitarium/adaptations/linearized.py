"""Tangent fine-tuning: a model that is linear in what learns."""

import warnings
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp

from vitarium.adaptations._extension import Extension, extend
from vitarium.adaptations._selection import train_only
from vitarium.adaptations.base import adaptation
from vitarium.architectures.heads import is_head
from vitarium.core.config import NoConfig

_TANGENT = "tangent"
_AFTER_FEATURES = ("fc_norm.", "attn_pool.")
"""Names of weights beside the head's that timm's `forward_features` does not use."""


class Linearized(Extension):
    """A model with the change of each of its weights at `tangent`.

    Features are f(x; w) + J(x; w) t, linear in the tangent t: a derivative in one forward pass.
    """

    tangent: nn.Module
    is_linearized = True

    def forward_features(self, x: Tensor, *masks: Any, **named: Any) -> Tensor:
        """Images [batch, c, h, w] -> tokens [batch, n, width] or [batch, h, w, width]"""
        plain = _Features(self)
        tangent = {f"model.{n}": t for n, t in self.tangent.named_parameters()}
        weights = {f"model.{n}": w for n, w in backbone(self).items()}

        def features(weights: dict[str, Tensor]) -> Tensor:
            tokens: Tensor = functional_call(plain, weights, (x, *masks), named)
            return tokens

        _load_derivatives()
        at_start, change, *_ = jvp(features, (weights,), (tangent,))
        return at_start + change


@cache
def _load_derivatives() -> None:
    """Once in a process, as torch does at its first derivative, where it warns of a function of its
    own that is deprecated."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.script` is deprecated", FutureWarning)
        jvp(torch.sin, (torch.zeros(()),), (torch.zeros(()),))


class _Features(nn.Module):
    """The features of a linearized model as they were, of its own weights."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        """Images [batch, c, h, w] -> tokens [batch, n, width] or [batch, h, w, width]"""
        tokens: Tensor = super(Linearized, self.model).forward_features(*inputs, **named)  # type: ignore[misc]
        return tokens


def backbone(model: Any) -> dict[str, Tensor]:
    """The weights [*shape] on which a model's features depend, by name."""
    return {
        name: weight
        for name, weight in model.named_parameters()
        if not name.startswith((f"{_TANGENT}.", *_AFTER_FEATURES)) and not is_head(model, name)
    }


def zeros_by_name(weights: Mapping[str, Tensor]) -> nn.Module:
    """A module with a parameter of zeros [*shape] for each weight, under its dotted name."""
    root = nn.Module()
    for name, weight in weights.items():
        *path, leaf = name.split(".")
        module = root
        for part in path:
            if part not in dict(module.named_children()):
                module.add_module(part, nn.Module())
            module = module.get_submodule(part)
        module.register_parameter(leaf, nn.Parameter(torch.zeros_like(weight)))
    return root


@adaptation(
    "linearized",
    title="tangent fine-tuning",
    paper="Ortiz-Jimenez et al. 2023, arXiv 2305.12827",
    adds_modules=True,
    frozen_in_eval_mode=True,
)
def linearized(config: NoConfig, model: nn.Module) -> None:
    """Tangent fine-tuning: features are linear in the change of the weights, and the head learns.

    Before pooling and head; takes two to three times as long as `full`. What siblings learn is
    merged in the tangent space, where it interferes less.
    """
    train_only(model, lambda name: False)
    for module in model.modules():
        if hasattr(module, "fused_attn"):  # of fused kernels there is no derivative
            vars(module)["fused_attn"] = False
    added: Any = model
    added.tangent = zeros_by_name(backbone(model))
    extend(added, Linearized)
