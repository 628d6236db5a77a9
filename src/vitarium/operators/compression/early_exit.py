"""Twins of a plain ViT with early exits; other thresholds for them, and a ViT cut at an exit."""

from collections.abc import Mapping
from typing import Any

from pydantic import NonNegativeInt
from torch import nn

from vitarium.architectures.early_exit._rule import EarlyExits, ExitRule
from vitarium.architectures.early_exit.early_exit_vit import EarlyExitVit
from vitarium.architectures.early_exit.lgvit import LocalGlobalExits
from vitarium.architectures.vit.vit import PlainVit
from vitarium.core import seeds
from vitarium.core.config import Config
from vitarium.core.errors import IncompatibleWeights
from vitarium.core.registry import Section, choose
from vitarium.evaluation.inputs import Weights
from vitarium.operators.base import ChangeArchitecture, Ingredients, NamedTensors, checked, operator
from vitarium.operators.compression._twins import same_weights, twin_section
from vitarium.zoo import Model

_PAPER = "Teerapittayanon et al. 2017, arXiv 1709.01686"
_TINY_VIT = {"name": "vit", "depth": 3}
_TINY_EXITS = {"name": "early_exit_vit", "depth": 3}


class _Drawn(Config):
    seed: NonNegativeInt = 0
    """Random seed of what exits have that the model has not."""


class EarlyExitTwin(EarlyExits, _Drawn):
    """Settings of an `early_exit_vit` that is made of a ViT."""


class LgvitExits(LocalGlobalExits, EarlyExits):
    """Settings of a LGViT's exits."""


class LgvitTwin(LgvitExits, _Drawn):
    """Settings of a LGViT that is made of a ViT."""


def _twin(name: str, settings: type[Config]) -> ChangeArchitecture:
    """Gives the section of that architecture for a plain ViT; the seed is none of its settings."""

    def change(config: Config, architecture: Section | None) -> Section:
        factors = config.factors(defaults=False)
        factors.pop("seed", None)
        return twin_section(name)(settings.read(factors), architecture)

    return change


_early_exit_section = _twin("early_exit_vit", EarlyExits)
_lgvit_section = _twin("lgvit", LgvitExits)


@operator(
    "early_exit_vit",
    title="Early exits",
    paper=_PAPER,
    models=(1, 1),
    architecture=_early_exit_section,
    compression="trained",
    tiny_architecture=_TINY_VIT,
)
def early_exit_vit(config: EarlyExitTwin, ingredients: Ingredients) -> NamedTensors:
    """Give a ViT early exits, each of which starts as its own last norm and head.

    Yields (name, tensor [*shape]): the model's own, and of each exit the model's last norm and its
    head, so that an exit begins as what the model would predict there. Where the head is not one
    linear layer, exits' classifiers are drawn from `seed`. Raises IncompatibleWeights for what is
    no plain ViT.
    """
    (model,) = ingredients
    yield from same_weights(ingredients)
    vit: Any = model.skeleton
    sources = {"norm": _last_norm(vit)}
    if isinstance(vit.head, nn.Linear):
        sources["head"] = "head"
    for name, drawn in _drawn_exits(_early_exit_section, config, model):
        part, kind = name.split(".")[2:]
        source = f"{sources.get(part)}.{kind}"
        yield name, model[source].clone() if part in sources else drawn


@operator(
    "lgvit",
    title="LGViT",
    paper="Xu et al. 2023, arXiv 2308.00255",
    models=(1, 1),
    architecture=_lgvit_section,
    compression="trained",
    tiny_architecture=_TINY_VIT,
)
def lgvit(config: LgvitTwin, ingredients: Ingredients) -> NamedTensors:
    """Give a ViT local exit heads after early blocks and global ones after later blocks.

    Yields (name, tensor [*shape]): the model's own, and exit heads drawn from `seed`. Raises
    IncompatibleWeights for what is no plain ViT.
    """
    (model,) = ingredients
    yield from same_weights(ingredients)
    yield from _drawn_exits(_lgvit_section, config, model)


def _drawn_exits(change: ChangeArchitecture, config: _Drawn, model: Weights) -> NamedTensors:
    """Tensors [*shape] of the exits of a new twin, in the dtype of the model's positions."""
    assert model.origin
    section, num_outputs = change(config, model.origin.architecture), model.skeleton.num_classes
    with seeds.seeded(config.seed):
        twin: nn.Module = section(num_outputs)
    dtype = model.dtype("pos_embed")
    for name, tensor in twin.state_dict().items():
        if name.startswith("exits."):
            yield name, tensor.to(dtype) if tensor.is_floating_point() else tensor


def _last_norm(vit: Any) -> str:
    """Name of the norm that the head reads."""
    return "fc_norm" if isinstance(vit.norm, nn.Identity) else "norm"


def _other_rule(config: ExitRule, architecture: Section | None) -> Section:
    """The same with another rule. Raises IncompatibleWeights for a model without exits."""
    name = architecture.name if architecture else "an unknown architecture"
    if architecture is None or not isinstance(architecture.config, EarlyExits):
        raise IncompatibleWeights(f"exit_threshold needs a model with early exits, not {name}")
    factors = {**architecture.factors(defaults=False), **config.factors()}
    return choose("architecture", factors.pop("name"), **factors)


@operator(
    "exit_threshold",
    title="Exit threshold",
    paper=_PAPER,
    models=(1, 1),
    architecture=_other_rule,
    compression="post_training",
    tiny={"threshold": 0.5},
    tiny_architecture=_TINY_EXITS,
)
def exit_threshold(config: ExitRule, ingredients: Ingredients) -> NamedTensors:
    """Let images leave a model with early exits by another threshold or criterion.

    Yields (name, tensor [*shape]), the model's own. Raises IncompatibleWeights for a model without
    exits.
    """
    return same_weights(ingredients)


class ExitMember(Config):
    """Where a model is cut."""

    block: NonNegativeInt
    """Number of the block, from 0, at whose exit the model is cut."""


def _cut_section(config: ExitMember, architecture: Section | None) -> Section:
    """The `vit` of the blocks up to an exit. Raises IncompatibleWeights where there is none."""
    exits = _exits_of(architecture)
    assert architecture
    if config.block not in exits.exiting:
        known = ", ".join(map(str, exits.exiting))
        raise IncompatibleWeights(f"no exit stands after block {config.block}; choose of {known}")
    factors = architecture.factors(defaults=False)
    shared = {name: factors[name] for name in PlainVit.model_fields if name in factors}
    return choose("architecture", "vit", **{**shared, "depth": config.block + 1})


def _exits_of(architecture: Section | None) -> EarlyExitVit:
    if architecture is None or not isinstance(exits := architecture.config, EarlyExitVit):
        name = architecture.name if architecture else "an unknown architecture"
        raise IncompatibleWeights(f"exit_member needs an early_exit_vit, not {name}")
    return exits


def members(model: Model, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The block of each exit."""
    exits = _exits_of(model.spec.origin.architecture)
    return [{"block": number} for number in exits.exiting]


@operator(
    "exit_member",
    title="Exit member",
    paper=_PAPER,
    models=(1, 1),
    architecture=_cut_section,
    compression="post_training",
    members=members,
    tiny={"block": 0},
    tiny_architecture=_TINY_EXITS,
)
def exit_member(config: ExitMember, ingredients: Ingredients) -> NamedTensors:
    """Cut an `early_exit_vit` at an exit: a shallower plain ViT with that exit's outputs.

    Yields (name, tensor [*shape]), as they are in the model; the exit's norm and classifier are the
    last norm and the head. Raises IncompatibleWeights where there is no such exit, or the model's
    own head is not linear.
    """
    (model,) = ingredients
    if not isinstance(model.skeleton.head, nn.Linear):
        kind = type(model.skeleton.head).__name__
        raise IncompatibleWeights(
            f"{model.name}: its head is a {kind}, and an exit has one linear layer in its place; "
            "give the model a head that is linear before it learns"
        )
    last, at = _last_norm(model.skeleton), f"exits.{config.block}."
    for name in ingredients.in_turn():
        tensor = checked(model, name)
        top, _, rest = name.partition(".")
        if name.startswith(at):
            yield name.removeprefix(at).replace("norm.", f"{last}."), tensor
        elif top == "blocks":
            if int(rest.partition(".")[0]) <= config.block:
                yield name, tensor
        elif top not in ("exits", last, "head"):
            yield name, tensor
