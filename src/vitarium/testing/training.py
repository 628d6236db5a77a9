"""The contracts of optimizers and schedules."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vitarium.testing._rules import Contract
from vitarium.training.resume import restore_progress, take_progress

_STEPS = 3
_EPOCHS = (1, 5)
_STEPS_PER_EPOCH = (1, 7)


def check_optimizer(name: str, **settings: Any) -> None:
    """Test that an optimizer keeps to its contract (`training/base.py`).

    Its rate is `config.lr`; steps from a restored state are those of an unbroken run, bit for bit;
    and, where it is `elementwise`, weights in one row get the steps that they get apart.
    """
    rule = Contract("optimizer", name, settings)
    section = rule.section
    model = _model()
    optimizer: Optimizer = section(model.parameters())
    for group in optimizer.param_groups:
        rule(group["lr"] == section.config.lr, f"its rate is {group['lr']}, not config.lr")
    start = _weights(model)
    _train(model, optimizer, range(_STEPS))
    rule(not torch.equal(start, _weights(model)), "a step changes nothing")

    resumed = _model()
    resumed_optimizer: Optimizer = section(resumed.parameters())
    restore_progress(resumed, resumed_optimizer, take_progress(model, optimizer))
    later = range(_STEPS, 2 * _STEPS)
    _train(model, optimizer, later)
    _train(resumed, resumed_optimizer, later)
    rule(
        torch.equal(_weights(model), _weights(resumed)),
        "resumed from its state_dict it takes other steps: state has to be tensors in there",
    )

    if rule.facts["elementwise"]:
        row = nn.Parameter(start.clone())
        row_optimizer: Optimizer = section([row])
        for step in range(2 * _STEPS):
            row.grad = torch.cat([gradient.flatten() for gradient in _gradients(model, step)])
            row_optimizer.step()
        holds = torch.allclose(row.detach(), _weights(model), rtol=1e-5, atol=1e-7)
        rule(holds, "it is not elementwise: weights in one row get other steps")


def check_schedule(name: str, **settings: Any) -> None:
    """Test that a schedule keeps to its contract (`training/base.py`).

    A finite factor from 0 to 1 at every step of short and long runs, the same whenever the step is
    the same, and above 0 at some step.
    """
    rule = Contract("schedule", name, settings)
    section = rule.section
    for per_epoch in _STEPS_PER_EPOCH:
        for epochs in _EPOCHS:
            steps = epochs * per_epoch
            factors = [section(step, steps, per_epoch) for step in range(steps)]
            for step, factor in enumerate(factors):
                holds = math.isfinite(factor) and -1e-9 <= factor <= 1 + 1e-9
                rule(holds, f"its factor is {factor} at step {step} of {steps}, not from 0 to 1")
            rule(max(factors) > 0, f"its factor is 0 at each of {steps} steps")
            backwards = [section(step, steps, per_epoch) for step in reversed(range(steps))]
            rule(
                factors == backwards[::-1],
                "its factor depends on more than the step: on which steps were asked before",
            )


def _model() -> nn.Module:
    model = nn.Linear(4, 3)
    for parameter, gradient in zip(model.parameters(), _gradients(model, -1), strict=True):
        parameter.data.copy_(gradient)
    return model


def _train(model: nn.Module, optimizer: Optimizer, steps: range) -> None:
    for step in steps:
        for parameter, gradient in zip(model.parameters(), _gradients(model, step), strict=True):
            parameter.grad = gradient
        optimizer.step()


def _gradients(model: nn.Module, step: int) -> list[Tensor]:
    """A gradient [*shape] for each parameter, the same whenever the step is the same."""
    stream = torch.Generator().manual_seed(step + 1)
    return [torch.randn(parameter.shape, generator=stream) for parameter in model.parameters()]


def _weights(model: nn.Module) -> Tensor:
    """All weights in one row, [n]."""
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
