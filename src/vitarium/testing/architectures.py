"""The contracts of architectures, heads and initializations."""

from typing import Any

import torch
from safetensors.torch import load, save
from torch import nn

from vitarium.architectures.base import ActsAfterSteps, ScalesRates
from vitarium.architectures.create import create_model
from vitarium.architectures.features import blocks, features
from vitarium.architectures.heads import head_prefix, is_head
from vitarium.core import seeds
from vitarium.testing._execution import check_bf16, check_stack
from vitarium.testing._rules import TINY_VIT, Contract
from vitarium.testing._symmetries import check_symmetries

_OUTPUTS = 5


def check_architecture(name: str, **settings: Any) -> None:
    """Test that an architecture keeps to its contract (`architectures/base.py`).

    Built with its `tiny` settings: outputs and gradients (in bf16, too), the same weights from the
    same seed, its state_dict through safetensors, features and head, where the block list is,
    presets, timm's model of the same name. In a stack it computes what it does by itself, or says
    why it is in none; what its symmetries declare changes no output, or it says why it has none.
    """
    rule = Contract("architecture", name, settings)
    section, facts = rule.section, rule.facts
    with seeds.seeded(0):
        model: nn.Module = section(_OUTPUTS)
        images = torch.randn(2, *section.config.input_size)
    with seeds.seeded(0):
        same_seed: nn.Module = section(_OUTPUTS)
    rule.equal_weights(
        model, same_seed, "the same seed of torch's global generator has to give the same weights"
    )
    outputs = model(images)
    rule(outputs.shape == (2, _OUTPUTS), f"outputs are {tuple(outputs.shape)}, not (2, {_OUTPUTS})")
    rule.reaches_all(outputs, model)

    loaded: nn.Module = section(_OUTPUTS)
    loaded.load_state_dict(load(save(model.state_dict())), strict=True)
    with torch.no_grad():
        expected = model.eval()(images)
        rule(
            torch.equal(expected, loaded.eval()(images)),
            "a model with another's state_dict has to compute the same, through safetensors",
        )
        rule(torch.equal(expected, model(images)), "in eval mode nothing may be random")

    _check_parts(rule, model, images)
    for preset, values in (facts["presets"] or {}).items():
        holds = section.plugin.config.read(values) is not None and preset != name
        rule(holds, f"preset {preset} needs a name of its own")
    if facts["timm"]:
        _check_timm(rule, section, model, images)
    check_bf16(rule, model, images)
    check_stack(rule, images, _OUTPUTS)
    rule(
        facts["symmetries"] is not None,
        "declare its symmetries, or say in a text why there are none to align models by",
    )
    if not isinstance(facts["symmetries"], str):
        check_symmetries(rule, model, images)


def check_head(name: str, **settings: Any) -> None:
    """Test that a head keeps to its contract (`architectures/base.py`), on a tiny ViT.

    Width of the outputs, gradients, the same weights from the same seed, an unchanged backbone.
    """
    rule = Contract("head", name, settings)
    models = []
    for _ in range(2):
        with seeds.seeded(0):
            model = create_model("vit", num_classes=3, **TINY_VIT)
            backbone = {n: w.clone() for n, w in model.named_parameters() if not is_head(model, n)}
            rule.section(model, _OUTPUTS)
        models.append(model.eval())
    model, same_seed = models
    weights = dict(model.named_parameters())
    rule.equal_weights(same_seed, model, "the same seed has to give the same weights")
    for parameter, before in backbone.items():
        holds = parameter in weights and torch.equal(before, weights[parameter])
        rule(holds, f"it changes {parameter}, which is not in {head_prefix(model)}")
    images = torch.randn(2, 3, 16, 16)
    outputs, width = model(images), features(model, images).shape[1]
    is_wide, count = f"outputs have width {outputs.shape[1]}", model.num_classes
    either = outputs.shape[1] in (_OUTPUTS, width)
    rule(either, f"{is_wide}, neither {_OUTPUTS} nor that of the features")
    rule(count == outputs.shape[1], f"model.num_classes is {count}, but {is_wide}")
    rule.reaches_all(outputs, model)


def check_initialization(name: str, **settings: Any) -> None:
    """Test that an initialization keeps to its contract (`architectures/base.py`), on a tiny ViT.

    In place, finite, and the same weights from the same seed of torch's global generator.
    """
    rule = Contract("initialization", name, settings)
    models = []
    for _ in range(2):
        with seeds.seeded(0):
            model = create_model("vit", num_classes=3, **TINY_VIT)
        before = dict(model.named_parameters())
        with seeds.seeded(1):
            rule.section(model)
        after = dict(model.named_parameters())
        holds = before.keys() == after.keys() and all(after[n] is w for n, w in before.items())
        rule(holds, "weights have to be drawn in place: the parameters are others")
        models.append(after)
    for parameter, weight in models[0].items():
        rule(bool(weight.isfinite().all()), f"{parameter} is not finite")
        rule(torch.equal(weight, models[1][parameter]), f"the same seed gave another {parameter}")


def _check_parts(rule: Contract, model: nn.Module, images: torch.Tensor) -> None:
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
        if isinstance(part, ScalesRates):
            own, multiples = dict(part.named_parameters()), part.lr_multipliers()
            named = all(name in own and multiple > 0 for name, multiple in multiples.items())
            rule(named, "its lr_multipliers are positive, and of parameters that it has")


def _check_timm(rule: Contract, section: Any, model: nn.Module, images: torch.Tensor) -> None:
    import timm

    from vitarium.core.errors import InvalidInput

    try:
        timm_name, overrides = rule.facts["timm"](section.config)
    except InvalidInput:
        return  # timm has no model for these settings
    timm_model = timm.create_model(timm_name, pretrained=False, num_classes=_OUTPUTS, **overrides)
    timm_model.load_state_dict(model.state_dict(), strict=True)
    with torch.no_grad():
        holds = torch.allclose(model(images), timm_model.eval()(images), atol=1e-5)
        rule(holds, f"timm's {timm_name} with {overrides} computes something else with its weights")
