"""Heads: what stands between a model's features and its outputs.

A head is put in the place of timm's classifier, so a model with a linear head has timm's own names
(`head.weight`) and one with an MLP those of the published zoo (`head.0.weight`, `head.2.weight`).
"""

from itertools import pairwise
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
    initial_bias: float | None = None
    """Bias of each output before training; none: as the initialization draws it. With objective
    `multilabel` and c classes about -log(c), so that the outputs begin at probabilities of 1/c:
    -6.9 for ImageNet-1k, -10 for ImageNet-21k (Steiner et al. 2022, arXiv 2106.10270)."""


class MlpHead(LinearHead):
    hidden_dim: PositiveInt
    """Units of the hidden layer."""
    activation: Literal["relu", "gelu", "silu", "tanh"] = "relu"
    """Activation function of the hidden layer."""


_START = ("initialization", "seed", "initial_bias")
"""Factors of what a head is drawn from."""


@head("linear", training_factors=_START)
def linear(config: LinearHead, model: nn.Module, num_outputs: int) -> None:
    """A linear classification head: one linear layer on the features."""
    layer = nn.Linear(num_features(model), num_outputs)
    config.initialization(layer)
    _fill_bias(config, layer)
    replace_head(model, layer, num_outputs)


@head("mlp", training_factors=_START, tiny={"hidden_dim": 8})
def mlp(config: MlpHead, model: nn.Module, num_outputs: int) -> None:
    """An MLP head: one hidden layer between the features and the outputs."""
    first = nn.Linear(num_features(model), config.hidden_dim)
    last = nn.Linear(config.hidden_dim, num_outputs)
    layers = nn.Sequential(first, _ACTIVATIONS[config.activation](), last)
    config.initialization(layers)
    _fill_bias(config, last)
    replace_head(model, layers, num_outputs)


def _fill_bias(config: LinearHead, layer: nn.Linear) -> None:
    if config.initial_bias is not None:
        nn.init.constant_(layer.bias, config.initial_bias)


@head("none")
def none(config: NoConfig, model: nn.Module, num_outputs: int) -> None:
    """No head: the model's features are its outputs."""
    replace_head(model, nn.Identity(), num_features(model))


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
    replace_head(model, MeanOfHeads(heads), num_outputs)


class MeanOfHeads(nn.ModuleList):
    """[batch, num_features] -> [batch, num_outputs]"""

    def forward(self, features: Tensor) -> Tensor:
        return torch.stack([head(features) for head in self]).mean(0)


class TokenHeads(MeanOfHeads):
    """A head for each of several tokens, whose features lie side by side; see `MeanOfHeads`."""

    def of_tokens(self, features: Tensor) -> list[Tensor]:
        """[batch, tokens * width] -> each token's outputs [batch, num_outputs]"""
        parts = features.chunk(len(self), dim=-1)
        return [head(part) for head, part in zip(self, parts, strict=True)]

    def forward(self, features: Tensor) -> Tensor:
        return torch.stack(self.of_tokens(features)).mean(0)


class TokenHeadsConfig(LinearHead):
    tokens: Annotated[int, Field(ge=2)] = 2
    """Tokens whose features lie side by side: `distilled_vit` has 2."""


@head("token_heads", training_factors=_START, paper="Touvron et al. 2021, arXiv 2012.12877")
def token_heads(config: TokenHeadsConfig, model: nn.Module, num_outputs: int) -> None:
    """A linear head for each pooled token, class and distillation token, and their mean."""
    width, rest = divmod(num_features(model), config.tokens)
    if rest:
        raise InvalidInput(
            f"token_heads: {num_features(model)} features are not those of {config.tokens} tokens"
        )
    heads = [nn.Linear(width, num_outputs) for _ in range(config.tokens)]
    for layer in heads:
        config.initialization(layer)
    replace_head(model, TokenHeads(heads), num_outputs)


class ReusedClassifierConfig(LinearHead):
    width: PositiveInt | None = None
    """Width of the teacher's features; none: the model's own."""
    layers: Literal[1, 2, 3] = 3
    """Linear layers of the projector, with ReLU between them."""
    hidden_dim: PositiveInt | None = None
    """Units of the projector's hidden layers; none: half of the model's features."""
    last_activation: bool = False
    """End the projector in a ReLU, as published; it cannot reach negative features, which those of
    a LayerNorm are by half."""


@head("reused_classifier", training_factors=_START, paper="Chen et al. 2022, arXiv 2203.14001")
def reused_classifier(config: ReusedClassifierConfig, model: nn.Module, num_outputs: int) -> None:
    """SimKD's head: a projector to a teacher's features, and the teacher's linear classifier."""
    start, width = num_features(model), config.width or num_features(model)
    widths = [start, *[config.hidden_dim or start // 2] * (config.layers - 1), width]
    projector = nn.Sequential()
    for number, (incoming, outgoing) in enumerate(pairwise(widths), start=1):
        projector.append(nn.Linear(incoming, outgoing))
        if number < config.layers or config.last_activation:
            projector.append(nn.ReLU())
    layers = ReusedClassifier(projector, nn.Linear(width, num_outputs))
    config.initialization(layers)
    replace_head(model, layers, num_outputs)


class ReusedClassifier(nn.Module):
    """[batch, num_features] -> [batch, num_outputs], by way of a teacher's features."""

    def __init__(self, projector: nn.Module, classifier: nn.Linear) -> None:
        super().__init__()
        self.projector, self.classifier = projector, classifier

    def forward(self, features: Tensor) -> Tensor:
        outputs: Tensor = self.classifier(self.projector(features))
        return outputs


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
    """Whether the tensor `name` of the model's state_dict belongs to its head, or to classifiers at
    its early exits (`exit_prefixes`), which are for the data's classes as well."""
    prefixes = (head_prefix(model), *getattr(model, "exit_prefixes", ()))
    return name.startswith(tuple(f"{prefix}." for prefix in prefixes))


def replace_head(model: nn.Module, new: nn.Module, num_outputs: int) -> None:
    """Put a module with so many outputs where a model's head stands."""
    model.set_submodule(head_prefix(model), new)
    model.num_classes = num_outputs  # type: ignore[assignment]


def num_features(model: nn.Module) -> int:
    """Width of the features that the head sees."""
    width = getattr(model, "head_hidden_size", None) or model.num_features
    return int(width)  # type: ignore[arg-type]
