"""Heads: what stands between a model's features and its outputs.

A head is put in the place of timm's classifier, so a model with a linear head has timm's own names
(`head.weight`) and one with an MLP those of the published zoo (`head.0.weight`, `head.2.weight`).
"""

from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from vitarium.architectures.base import head
from vitarium.core.config import Config, NoConfig
from vitarium.core.errors import InvalidInput
from vitarium.core.registry import Section, SectionOf

_ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh}


class LinearHead(Config):
    initialization: Annotated[Section, SectionOf("initialization")] = Field(
        "default", validate_default=True
    )
    """Initialization of the head's linear layers; `default` is PyTorch's."""
    seed: NonNegativeInt | None = None
    """Random seed of the head's initial weights; none: the model's seed."""


class MlpHead(LinearHead):
    hidden_dim: PositiveInt
    """Units of the hidden layer."""
    activation: Literal["relu", "gelu", "silu", "tanh"] = "relu"
    """Activation function of the hidden layer."""


_START = ("initialization", "seed")
"""Factors of what a head is drawn from."""


@head("linear", training_factors=_START)
def linear(config: LinearHead, model: nn.Module, num_outputs: int) -> None:
    """A linear classification head: one linear layer on the features."""
    layer = nn.Linear(num_features(model), num_outputs)
    config.initialization(layer)
    _replace(model, layer, num_outputs)


@head("mlp", training_factors=_START, tiny={"hidden_dim": 8})
def mlp(config: MlpHead, model: nn.Module, num_outputs: int) -> None:
    """An MLP head: one hidden layer between the features and the outputs."""
    layers = nn.Sequential(
        nn.Linear(num_features(model), config.hidden_dim),
        _ACTIVATIONS[config.activation](),
        nn.Linear(config.hidden_dim, num_outputs),
    )
    config.initialization(layers)
    _replace(model, layers, num_outputs)


@head("none")
def none(config: NoConfig, model: nn.Module, num_outputs: int) -> None:
    """No head: the model's features are its outputs."""
    _replace(model, nn.Identity(), num_features(model))


class EnsembleHead(Config):
    heads: tuple[Annotated[Section, SectionOf("head")], ...] = Field(min_length=2)
    """The heads, at least two, each a name or a mapping with a name, e.g. [linear, {name: mlp,
    hidden_dim: 64}]."""


@head("ensemble", tiny={"heads": ("linear", "linear")})
def ensemble(config: EnsembleHead, model: nn.Module, num_outputs: int) -> None:
    """Several heads on the same features, whose outputs are averaged."""
    prefix, heads = head_prefix(model), []
    for section in config.heads:
        section(model, num_outputs)
        heads.append(model.get_submodule(prefix))
    _replace(model, MeanOfHeads(heads), num_outputs)


class MeanOfHeads(nn.ModuleList):
    """[batch, num_features] -> [batch, num_outputs]"""

    def forward(self, features: Tensor) -> Tensor:
        return torch.stack([head(features) for head in self]).mean(0)


def head_prefix(model: nn.Module) -> str:
    """Dotted name of the module in which the head stands, e.g. "head" or "head.fc"."""
    prefix = (getattr(model, "pretrained_cfg", None) or {}).get("classifier") or "head"
    if not isinstance(prefix, str):
        raise InvalidInput(
            f"{type(model).__name__} has several heads ({', '.join(prefix)}); "
            "choose a model with one, e.g. its variant without distillation"
        )
    return prefix


def is_head(model: nn.Module, name: str) -> bool:
    """Whether the tensor `name` of the model's state_dict belongs to its head."""
    return name.startswith(head_prefix(model) + ".")


def _replace(model: nn.Module, new: nn.Module, num_outputs: int) -> None:
    model.set_submodule(head_prefix(model), new)
    model.num_classes = num_outputs  # type: ignore[assignment]


def num_features(model: nn.Module) -> int:
    """Width of the features that the head sees."""
    width = getattr(model, "head_hidden_size", None) or model.num_features
    return int(width)  # type: ignore[arg-type]
