"""Optimizers are torch's and timm's, with the settings of the blueprint."""

import pytest
import torch
from torch import nn

from vitarium.core.config import InvalidConfig
from vitarium.core.registry import plugins, section
from vitarium.testing import check_optimizer
from vitarium.training.optimizers.timm import usable_optimizers


def test_adamw_gets_its_settings():
    settings = {"lr": 0.5, "weight_decay": 0.25, "betas": [0.5, 0.75], "eps": 0.125}
    optimizer = section("optimizer", {"name": "adamw", **settings})([torch.zeros(1)])
    assert isinstance(optimizer, torch.optim.AdamW)
    group = optimizer.param_groups[0]
    assert {key: group[key] for key in settings} == {**settings, "betas": (0.5, 0.75)}


@pytest.mark.parametrize("betas", [[1, 0.9], [0.9, 1.0], [-0.1, 0.9]])
def test_decay_rates_that_torch_refuses_are_refused(betas):
    with pytest.raises(InvalidConfig, match="betas"):
        section("optimizer", {"name": "adamw", "betas": betas})


def test_sgd_gets_its_settings():
    settings = {"lr": 0.5, "weight_decay": 0.25, "momentum": 0.75, "nesterov": True}
    optimizer = section("optimizer", {"name": "sgd", **settings})([torch.zeros(1)])
    assert isinstance(optimizer, torch.optim.SGD)
    assert {key: optimizer.param_groups[0][key] for key in settings} == settings


def test_sgd_has_no_momentum_unless_asked():
    assert section("optimizer", "sgd").config.momentum == 0


def test_nesterov_without_momentum_is_refused():
    with pytest.raises(InvalidConfig, match="nesterov needs a momentum"):
        section("optimizer", {"name": "sgd", "nesterov": True})


@pytest.mark.parametrize("name", sorted(plugins("optimizer")))
def test_every_optimizer_keeps_to_the_contract(name):
    check_optimizer(name)


def stepped(settings, weight, gradients):
    """The weight after steps along these gradients, by the plug-in."""
    parameter = nn.Parameter(weight.clone())
    optimizer = section("optimizer", settings)([parameter])
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
    return parameter.detach()


def example(*shape):
    stream = torch.Generator().manual_seed(0)
    draw = [torch.randn(*shape, generator=stream, dtype=torch.float64) for _ in range(4)]
    return draw[0], draw[1:]


def test_lion_steps_by_the_sign_of_its_average():
    weight, gradients = example(5, 3)
    rate, decay, first, second = 0.01, 0.2, 0.8, 0.6
    expected, average = weight.clone(), torch.zeros_like(weight)
    for gradient in gradients:
        expected *= 1 - rate * decay
        expected -= rate * (first * average + (1 - first) * gradient).sign()
        average = second * average + (1 - second) * gradient
    settings = {"name": "lion", "lr": rate, "weight_decay": decay, "betas": [first, second]}
    assert torch.allclose(stepped(settings, weight, gradients), expected, atol=1e-12)


def test_lamb_scales_the_steps_of_adam_to_the_norm_of_the_weight():
    weight, gradients = example(5, 3)
    rate, decay, first, second, eps = 0.01, 0.2, 0.8, 0.6, 1e-6
    expected = weight.clone()
    mean, square = torch.zeros_like(weight), torch.zeros_like(weight)
    for number, gradient in enumerate(gradients, 1):
        gradient = gradient / max(gradient.norm().item() / 0.7, 1)
        mean = first * mean + (1 - first) * gradient
        square = second * square + (1 - second) * gradient**2
        step = (mean / (1 - first**number)) / ((square / (1 - second**number)).sqrt() + eps)
        step += decay * expected
        expected -= rate * step * expected.norm() / step.norm()
    settings = {"name": "lamb", "lr": rate, "weight_decay": decay, "betas": [first, second]}
    after = stepped(settings | {"max_grad_norm": 0.7}, weight, gradients)
    assert torch.allclose(after, expected, atol=1e-12)


def test_adan_follows_its_paper():
    weight, gradients = example(5, 3)
    rate, decay, betas, eps = 0.01, 0.2, (0.9, 0.8, 0.7), 1e-8
    expected, before = weight.clone(), gradients[0]
    mean, difference, square = (torch.zeros_like(weight) for _ in range(3))
    for number, gradient in enumerate(gradients, 1):
        change, before = gradient - before, gradient
        mean = betas[0] * mean + (1 - betas[0]) * gradient
        difference = betas[1] * difference + (1 - betas[1]) * change
        square = betas[2] * square + (1 - betas[2]) * (gradient + betas[1] * change) ** 2
        corrected = [1 - beta**number for beta in betas]
        step = mean / corrected[0] + betas[1] * difference / corrected[1]
        step /= (square / corrected[2]).sqrt() + eps
        expected = (expected - rate * step) / (1 + rate * decay)
    settings = {"name": "adan", "lr": rate, "weight_decay": decay, "betas": betas}
    assert torch.allclose(stepped(settings, weight, gradients), expected, atol=1e-12)


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("adjust", ["original", "match_rms_adamw"])
def test_muon_takes_the_steps_of_torch_for_matrices(nesterov, adjust):
    weight, gradients = example(12, 8)
    weight, gradients = weight.float(), [gradient.float() for gradient in gradients]
    shared = {"lr": 0.01, "weight_decay": 0.2, "momentum": 0.8, "nesterov": nesterov}
    reference = nn.Parameter(weight.clone())
    optimizer = torch.optim.Muon([reference], adjust_lr_fn=adjust, **shared)
    for gradient in gradients:
        reference.grad = gradient
        optimizer.step()
    after = stepped({"name": "muon", "adjust_lr": adjust, **shared}, weight, gradients)
    moved = (reference - weight).norm()
    assert (after - reference).norm() < 0.02 * moved  # both compute in bfloat16


def test_muon_takes_the_steps_of_adamw_for_what_is_no_matrix():
    weight, gradients = example(7)
    shared = {"lr": 0.01, "weight_decay": 0.2}
    reference = nn.Parameter(weight.clone())
    optimizer = torch.optim.AdamW([reference], betas=(0.8, 0.6), **shared)
    for gradient in gradients:
        reference.grad = gradient
        optimizer.step()
    settings = {"name": "muon", "nesterov": False, "betas": [0.8, 0.6], **shared}
    assert torch.allclose(stepped(settings, weight, gradients), reference, atol=1e-7)


@pytest.mark.parametrize("adaptive", [False, True])
def test_sam_perturbs_by_its_papers_and_restores_every_bit(adaptive):
    weight, gradients = example(5, 3)
    parts = [nn.Parameter(weight[:2].clone()), nn.Parameter(weight[2:].clone())]
    settings = {"name": "sam", "rho": 0.3, "adaptive": adaptive, "base": {"lr": 0.1}}
    optimizer = section("optimizer", settings)(parts)
    for part, gradient in zip(parts, (gradients[0][:2], gradients[0][2:]), strict=True):
        part.grad = gradient
    sizes = weight.abs() if adaptive else torch.ones_like(weight)
    scaled = sizes * gradients[0]
    with optimizer.perturbed():
        moved = torch.cat([part.detach() for part in parts]) - weight
    assert torch.allclose(moved, 0.3 * sizes * scaled / scaled.norm(), atol=1e-12)
    assert torch.equal(torch.cat([part.detach() for part in parts]), weight)


def test_the_rate_of_sam_is_that_of_its_base():
    sam = section("optimizer", {"name": "sam", "base": {"name": "adamw", "lr": 0.5}})
    assert sam.config.lr == 0.5
    assert sam.factors(defaults=False) == {"name": "sam", "base": {"name": "adamw", "lr": 0.5}}
    with pytest.raises(InvalidConfig, match="base: sam cannot be around itself"):
        section("optimizer", {"name": "sam", "base": "sam"})


@pytest.mark.parametrize("name", usable_optimizers())
def test_every_optimizer_of_timm_keeps_to_the_contract(name):
    check_optimizer("timm", optimizer=name)


def test_optimizers_of_timm_get_their_settings():
    settings = {"lr": 0.5, "weight_decay": 0.25, "options": {"betas": [0.5, 0.75], "eps": 0.125}}
    optimizer = section("optimizer", {"name": "timm", "optimizer": "nadamw", **settings})(
        [torch.zeros(1)]
    )
    assert type(optimizer).__name__ == "NAdamW"
    assert optimizer.param_groups[0]["betas"] == (0.5, 0.75)
    assert optimizer.param_groups[0]["weight_decay"] == 0.25


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": "nadmw"}, "optimizer: unknown optimizer of timm 'nadmw'.*nadamw"),
        ({"optimizer": "kron"}, "optimizer: 'kron' cannot be used here: it draws random"),
        ({"optimizer": "adahessian"}, "second derivatives"),
        ({"optimizer": "lion", "options": {"beta": 3}}, "options: timm's lion refuses them.*beta"),
        ({"optimizer": "adamw", "options": {"betas": [0.9]}}, "options: timm's adamw refuses them"),
        (
            {"optimizer": "lion", "options": {"lr": 3}},
            "options.lr: it is no option: write it beside",
        ),
        ({"optimizer": "adamw", "options": {"layer_decay": 0.5}}, "the adaptation `layer_decay`"),
        ({"optimizer": "muon", "options": {"ns_steps": 101}}, "ns_steps: 101 is more than 100"),
    ],
)
def test_what_timm_does_not_have_is_refused(settings, message):
    with pytest.raises(InvalidConfig, match=message):
        section("optimizer", {"name": "timm", **settings})


def test_reading_settings_draws_nothing_at_random():
    before = torch.get_rng_state()
    section("optimizer", {"name": "timm", "optimizer": "nadamw"})
    assert torch.equal(torch.get_rng_state(), before)
