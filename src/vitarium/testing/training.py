"""The contracts of optimizers and schedules."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vitarium.testing._rules import Contract
from vitarium.training.base import RATE
from vitarium.training.resume import restore_progress, take_progress

_STEPS = 3
_EPOCHS = (1, 5)
_STEPS_PER_EPOCH = (1, 7)


def check_optimizer(name: str, **settings: Any) -> None:
    """Test that an optimizer keeps to its contract (`training/base.py`).

    Its rate is `config.lr`; it takes parameters, and groups of them; steps from a restored state
    are those of an unbroken run, bit for bit; and, where it is `elementwise`, weights in one row
    get the steps that they get apart.
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
    _check_groups(rule)
    for parameters in (_one_group, _two_groups):
        _check_resumption(rule, parameters)

    if rule.facts["elementwise"]:
        row = nn.Parameter(start.clone())
        row_optimizer: Optimizer = section([row])
        for step in range(2 * _STEPS):
            row.grad = torch.cat([gradient.flatten() for gradient in _gradients(model, step)])
            row_optimizer.step()
        _train(model, optimizer, range(_STEPS, 2 * _STEPS))
        holds = torch.allclose(row.detach(), _weights(model), rtol=1e-5, atol=1e-7)
        rule(holds, "it is not elementwise: weights in one row get other steps")


def _one_group(model: nn.Module) -> list[Any]:
    return list(model.parameters())


def _two_groups(model: nn.Module) -> list[Any]:
    weight, bias = model.parameters()
    return [
        {"params": [weight], RATE: 1.0},
        {"params": [bias], RATE: 0.5, "weight_decay": 0.0},
    ]


def _check_groups(rule: Contract) -> None:
    """Groups keep their settings; those of the same settings get the steps of a single group."""
    grouped, ungrouped = _model(), _model()
    optimizer = rule.section(_two_groups(grouped))
    settings = [(g.get(RATE), g["weight_decay"]) for g in optimizer.param_groups[1:]]
    rule(settings == [(0.5, 0.0)], f"it does not keep the settings of its groups: {settings}")
    groups = [{"params": [parameter]} for parameter in grouped.parameters()]
    _train(grouped, rule.section(groups), range(_STEPS))
    _train(ungrouped, rule.section(_one_group(ungrouped)), range(_STEPS))
    holds = torch.allclose(_weights(grouped), _weights(ungrouped), rtol=1e-5, atol=1e-7)
    rule(holds, "parameters in two groups of the same settings get other steps than in one")


def _check_resumption(rule: Contract, parameters: Callable[[nn.Module], list[Any]]) -> None:
    """Steps from a state that was put down and read again are those of an unbroken run."""
    model, resumed = _model(), _model()
    optimizer: Optimizer = rule.section(parameters(model))
    _train(model, optimizer, range(_STEPS))
    resumed_optimizer: Optimizer = rule.section(parameters(resumed))
    restore_progress(resumed, resumed_optimizer, take_progress(model, optimizer))
    later = range(_STEPS, 2 * _STEPS)
    _train(model, optimizer, later)
    _train(resumed, resumed_optimizer, later)
    rule(
        torch.equal(_weights(model), _weights(resumed)),
        "resumed from its state_dict it takes other steps: its state has to be tensors or numbers",
    )


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
    model = nn.Linear(6, 5)
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
