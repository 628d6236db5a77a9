"""How an architecture computes: in bfloat16, and as one model of a stack."""

from collections.abc import Mapping
from copy import deepcopy
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from vitarium.core import seeds
from vitarium.core.registry import choose
from vitarium.testing._rules import Contract, with_auxiliary_losses
from vitarium.training._stack_key import why_not_stacked
from vitarium.training._stacked_modules import multiply_convolutions

_CLOSE = 1e-6
"""Largest difference of outputs and gradients in float64, relative to the largest of them."""
_HINT = "; if that is how it is, the module has to say why (`trains_singly`, architectures/base.py)"


def check_bf16(rule: Contract, model: nn.Module, images: Tensor) -> None:
    """Outputs for images [batch, c, h, w] and all gradients are finite under bf16 autocast."""
    model = deepcopy(model).train()
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(images)
    rule(bool(outputs.isfinite().all()), "under bf16 autocast its outputs are not finite")
    loss = outputs.float().square().sum()
    with_auxiliary_losses(loss, model, outputs.float()).backward()
    for name, parameter in model.named_parameters():
        holds = parameter.grad is not None and bool(parameter.grad.isfinite().all())
        rule(holds, f"under bf16 autocast the gradient of {name} is missing or not finite")


def check_stack(rule: Contract, images: Tensor, num_outputs: int) -> None:
    """Two models in a stack have the outputs for images [batch, c, h, w] and the gradients that
    each has by itself, in float64; or it is known why they are not stacked."""
    if why_not_stacked(rule.section, choose("adaptation", "full")):
        return
    models = []
    for seed in range(2):
        with seeds.seeded(seed):
            models.append(rule.section(num_outputs).double().train())
            with torch.no_grad():  # what starts at zero would hide what is behind it
                for parameter in models[-1].parameters():
                    parameter.add_(0.02 * torch.randn_like(parameter))
    with sdpa_kernel(SDPBackend.MATH):
        by_itself = [_outputs_and_gradients(model, images.double()) for model in models]
        try:
            in_stack = _of_stack(models, images.double())
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            raise AssertionError(f"{rule.name}: in a stack: {reason}{_HINT}") from error
    for number, (expected, stacked) in enumerate(zip(by_itself, in_stack, strict=True)):
        # what is zero but for rounding, as biases' gradients before a batch norm, has no scale
        least = 1e-6 * max(float(tensor.abs().max()) for tensor in expected.values())
        for name, tensor in expected.items():
            difference = float((tensor - stacked[name]).abs().max())
            relative = difference / max(float(tensor.abs().max()), least)
            what = f"in a stack {name} of model {number} differ by {relative:.0e}{_HINT}"
            rule(relative < _CLOSE, what)


def _outputs_and_gradients(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    model = deepcopy(model)
    outputs = model(images)
    outputs.square().sum().backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    buffers = dict(model.named_buffers())
    return {"the outputs": outputs.detach(), **gradients, **_floats(buffers)}


def _of_stack(models: list[nn.Module], images: Tensor) -> list[dict[str, Tensor]]:
    template = deepcopy(models[0])
    multiply_convolutions(template)
    parameters = [dict(model.named_parameters()) for model in models]
    buffers = [dict(model.named_buffers()) for model in models]
    weights = {
        name: torch.stack([own[name].detach() for own in parameters]).requires_grad_()
        for name in parameters[0]
    }
    statistics = {name: torch.stack([own[name] for own in buffers]) for name in buffers[0]}
    forward = partial(functional_call, template, args=(images,))
    outputs = vmap(lambda own, shared: forward({**own, **shared}))(weights, statistics)
    gradients = torch.autograd.grad(outputs.square().sum(), list(weights.values()))
    rows = {
        "the outputs": outputs.detach(),
        **dict(zip(weights, gradients, strict=True)),
        **_floats(statistics),
    }
    return [{name: row[number] for name, row in rows.items()} for number in range(len(models))]


def _floats(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}
