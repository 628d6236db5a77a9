"""The contract of adaptations."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from vitarium.architectures.create import create_model
from vitarium.architectures.heads import is_head
from vitarium.core import seeds
from vitarium.core.devices import meta_device
from vitarium.testing._rules import TINY_VIT, Contract
from vitarium.zoo.merged_checkpoint import is_factor, layer_weights

_CLASSES, _IMAGES, _STEPS = 3, 6, 3
_SMALL = {**TINY_VIT, "embed_dim": 16, "depth": 2}


def check_adaptation(name: str, **settings: Any) -> None:
    """Test that an adaptation keeps to its contract (`adaptations/base.py`), on a tiny ViT.

    The same parameters for the same seed, on the meta device, too; the parent's function at the
    start; the head learns; what is frozen stays bit by bit; the plain view has the plain model's
    names and its function is that of the trained one; shares of the rate, penalties and stacks are
    as the facts say.
    """
    rule = Contract("adaptation", name, settings)
    with seeds.seeded(0):
        plain = create_model("vit", num_classes=_CLASSES, **_SMALL).eval()
    adapted = _adapted(rule, plain)
    _check_start(rule, plain, adapted)
    start = {name: tensor.clone() for name, tensor in adapted.state_dict().items()}
    _check_extras(rule, adapted, start)
    _train(rule, adapted, start)
    _check_training(rule, adapted, start)
    rule.equal_weights(
        _loaded(_adapted(rule, plain), adapted.state_dict()),
        adapted,
        "what was trained does not load into the model adapted anew",
    )
    if not rule.facts["adds_modules"]:
        _check_plain_view(rule, plain, adapted)
    if rule.facts["stackable"]:
        _check_stack(rule, adapted)


def _adapted(rule: Contract, plain: nn.Module) -> nn.Module:
    model = deepcopy(plain)
    with seeds.seeded(1):
        rule.section(model)
    return model.eval()


def _check_start(rule: Contract, plain: nn.Module, adapted: nn.Module) -> None:
    again = _adapted(rule, plain)
    rule.equal_weights(adapted, again, "with the same seed it adds other parameters")
    with meta_device():
        hollow = create_model("vit", num_classes=_CLASSES, **_SMALL)
        rule.section(hollow)
    rule(
        list(hollow.state_dict()) == list(adapted.state_dict()),
        "on the meta device it adds other parameters",
    )
    before, after = plain.state_dict(), adapted.state_dict()
    for name, tensor in before.items():
        rule(name in after and torch.equal(tensor, after[name]), f"it changes {name} at the start")
    added = [name for name in after if name not in before]
    if not rule.facts["adds_modules"]:
        strange = [name for name in added if not is_factor(name)]
        rule(not strange, f"{strange[:1]}: name what it adds MODULE.adaptation.FACTOR")
        rule(rule.facts["merge"] or not added, "what it adds cannot be merged: register `merge`")
    else:
        mergeable = [name for name in added if is_factor(name)]
        rule(added, "it adds no parameters, and says that it adds modules")
        rule(not mergeable, f"{mergeable[:1]}: only what is merged is named so")
    if rule.facts["starts_as_parent"]:
        rule(
            torch.allclose(plain(_images()), adapted(_images()), atol=1e-5),
            "its outputs are not the parent's at the start",
        )


def _check_extras(rule: Contract, model: nn.Module, start: Mapping[str, Tensor]) -> None:
    """Rates and penalty."""
    parameters = dict(model.named_parameters())
    if rates := rule.facts["rates"]:
        shares = rates(rule.section.config, model)
        rule(shares.keys() <= parameters.keys(), "it gives rates of what is no parameter")
        rule(all(0 < share <= 1 for share in shares.values()), "its rates are not in (0, 1]")
    if penalty := rule.facts["penalty"]:
        backbone = {n: start[n] for n in parameters if not is_head(model, n)}
        value = penalty(rule.section.config, model, backbone)
        rule(value.ndim == 0 and value.isfinite(), "its penalty is not a finite scalar")


def _train(rule: Contract, model: nn.Module, start: Mapping[str, Tensor]) -> None:
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    without_head = [name for name in parameters if not is_head(model, name)]
    heads = [name for name, _ in model.named_parameters() if is_head(model, name)]
    rule(set(heads) <= set(parameters), "the head does not learn")
    optimizer = torch.optim.AdamW(parameters.values(), lr=0.05)
    labels = torch.arange(_IMAGES) % _CLASSES
    model.train()
    for _ in range(_STEPS):
        loss = F.cross_entropy(model(_images()), labels)
        if penalty := rule.facts["penalty"]:
            of_start = {name: start[name] for name in without_head}
            loss = loss + penalty(rule.section.config, model, of_start)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    for name, parameter in parameters.items():
        reached = parameter.grad is not None and bool(parameter.grad.isfinite().all())
        rule(reached, f"the gradient of {name} is missing or not finite")


def _check_training(rule: Contract, model: nn.Module, start: Mapping[str, Tensor]) -> None:
    for name, parameter in model.named_parameters():
        same = torch.equal(parameter.detach(), start[name])
        if not parameter.requires_grad:
            rule(same, f"{name} is frozen, and training changed it")
        elif not name.endswith(("qkv.bias", "k_proj.bias")):  # a key's bias changes no output
            rule(not same, f"{name} learns, and training did not change it")


def _check_plain_view(rule: Contract, plain: nn.Module, adapted: nn.Module) -> None:
    tensors = adapted.state_dict()
    view = {name: tensor for name, tensor in tensors.items() if not is_factor(name)}
    factors = {name: tensor for name, tensor in tensors.items() if is_factor(name)}
    for name in layer_weights(factors):
        view[name] = rule.facts["merge"](rule.section.config, name, view[name], factors)
    merged = _loaded(deepcopy(plain), view)
    difference = (merged(_images()) - adapted(_images())).abs().max().item()
    rule(difference <= 1e-5, f"merged, its outputs differ by {difference:.1e}")


def _check_stack(rule: Contract, model: nn.Module) -> None:
    rows = {name: tensor.expand(2, *tensor.shape) for name, tensor in model.state_dict().items()}
    images = _images()
    with sdpa_kernel(SDPBackend.MATH):
        outputs = vmap(lambda tensors: functional_call(model, tensors, (images,)))(rows)
    rule(torch.allclose(outputs[1], model(images), atol=1e-5), "in a stack its outputs differ")


def _loaded(model: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    model.load_state_dict(weights, strict=True)
    return model


def _images() -> Tensor:
    stream = torch.Generator().manual_seed(2)
    return torch.randn(_IMAGES, 3, 16, 16, generator=stream)
