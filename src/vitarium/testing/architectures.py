"""The contract of architectures."""

from typing import Any

import torch
from safetensors.torch import load, save
from torch import nn

from vitarium.architectures.base import ActsAfterSteps
from vitarium.architectures.features import blocks, features
from vitarium.architectures.heads import head_prefix
from vitarium.architectures.symmetries.base import Symmetries
from vitarium.core import seeds
from vitarium.testing._rules import require, tiny_section

_OUTPUTS = 5


def check_architecture(name: str, **settings: Any) -> None:
    """Test that an architecture keeps to its contract (`architectures/base.py`).

    Built with its `tiny` settings: outputs and gradients, the same weights from the same seed, its
    state_dict through safetensors, features and head, where the block list is, presets, timm's
    model of the same name, and the tensors that its symmetries declare.

    Args:
        settings: used in place of the plug-in's `tiny` ones.

    Raises AssertionError that names the rule.
    """

    def rule(holds: bool, text: str) -> None:
        require(holds, "architecture", name, text)

    section = tiny_section("architecture", name, settings)
    facts = section.plugin.facts
    with seeds.seeded(0):
        model: nn.Module = section(_OUTPUTS)
        images = torch.randn(2, *section.config.input_size)
    with seeds.seeded(0):
        same_seed: nn.Module = section(_OUTPUTS)
    rule(
        _equal(model, same_seed),
        "the same seed of torch's global generator has to give the same weights",
    )

    outputs = model(images)
    rule(outputs.shape == (2, _OUTPUTS), f"outputs are {tuple(outputs.shape)}, not (2, {_OUTPUTS})")
    outputs.sum().backward()
    without = [n for n, parameter in model.named_parameters() if parameter.grad is None]
    rule(not without, f"no gradient reaches {', '.join(without[:3])}")

    other: nn.Module = section(_OUTPUTS)
    other.load_state_dict(load(save(model.state_dict())), strict=True)
    with torch.no_grad():
        expected = model.eval()(images)
        rule(
            torch.equal(expected, other.eval()(images)),
            "a model with another's state_dict has to compute the same, through safetensors",
        )
        rule(torch.equal(expected, model(images)), "in eval mode nothing may be random")

    _check_parts(rule, model, images)
    for preset, values in (facts["presets"] or {}).items():
        rule(
            section.plugin.config.read(values) is not None and preset != name,
            f"preset {preset} needs a name of its own",
        )
    if facts["timm"]:
        _check_timm(rule, section, model, images)
    if facts["symmetries"]:
        _check_symmetries(rule, facts["symmetries"](model), model)


def _equal(model: nn.Module, other: nn.Module) -> bool:
    tensors, others = model.state_dict(), other.state_dict()
    return tensors.keys() == others.keys() and all(
        torch.equal(tensor, others[name]) for name, tensor in tensors.items()
    )


def _check_parts(rule: Any, model: nn.Module, images: torch.Tensor) -> None:
    """Features, head and blocks of a model in eval mode."""
    prefix = head_prefix(model)
    rule(
        any(name == prefix for name, _ in model.named_modules()),
        f"there is no module '{prefix}'; the head has to be at `head`, or where "
        "pretrained_cfg['classifier'] says",
    )
    with torch.no_grad():
        pooled = features(model, images)
    rule(pooled.ndim == 2 and len(pooled) == 2, f"features are {tuple(pooled.shape)}, not [2, n]")
    rule(len(blocks(model)) > 0, "its blocks have to be at `blocks`, `layers` or `stages`")
    for part in model.modules():
        if isinstance(part, ActsAfterSteps):
            part.after_step()


def _check_timm(rule: Any, section: Any, model: nn.Module, images: torch.Tensor) -> None:
    import timm

    from vitarium.core.errors import InvalidInput

    try:
        timm_name, overrides = section.plugin.facts["timm"](section.config)
    except InvalidInput:
        return  # timm has no model for these settings
    theirs = timm.create_model(timm_name, pretrained=False, num_classes=_OUTPUTS, **overrides)
    theirs.load_state_dict(model.state_dict(), strict=True)
    with torch.no_grad():
        rule(
            torch.allclose(model(images), theirs.eval()(images), atol=1e-5),
            f"timm's {timm_name} with {overrides} computes something else with its weights",
        )


def _check_symmetries(rule: Any, symmetries: Symmetries, model: nn.Module) -> None:
    tensors = model.state_dict()
    declared = {piece.tensor for piece in symmetries.pieces}
    real = {name for name, tensor in tensors.items() if tensor.is_floating_point()}
    rule(declared == real, f"symmetries of {sorted(declared ^ real)[:3]} are not declared")
    for piece in symmetries.pieces:
        part = piece.of(tensors)
        for axis, size in zip(piece.axes, part.shape, strict=True):
            rule(
                axis.group is None or symmetries.groups[axis.group].size == size,
                f"symmetries: {piece.tensor} has {size} units on the axis of {axis.group}",
            )
