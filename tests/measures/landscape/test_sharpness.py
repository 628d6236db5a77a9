"""The rise of the loss after one step of SAM uphill."""

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vitarium.core.registry import choose
from vitarium.evaluation.losses import parameters
from vitarium.measures.landscape.sharpness import Sharpness, ascended


def by_hand(subject, rho, adaptive, eta=0.01):
    """The step written out in float64, on all images at once."""
    model = deepcopy(subject.model).double().requires_grad_(True)
    batch = next(subject.examples.first(100).batches(100))

    def loss():
        return F.cross_entropy(model(batch.images.double()), batch.labels)

    before = loss()
    before.backward()
    weights = torch.cat([p.detach().flatten() for p in model.parameters()])
    slope = torch.cat([p.grad.flatten() for p in model.parameters()])
    scale = weights.abs() + eta if adaptive else torch.ones_like(weights)
    step = rho * scale**2 * slope / (scale * slope).norm()
    nn.utils.vector_to_parameters(weights + step, model.parameters())
    return (loss() - before).item()


@pytest.mark.parametrize(("rho", "adaptive"), [(0.05, False), (0.2, False), (0.5, True)])
def test_is_the_rise_after_a_step_made_by_hand(linear, rho, adaptive):
    measure = choose(
        "measure", "sharpness", rho=rho, adaptive=adaptive, num_images=100, batch_size=30
    )
    assert measure(linear) == pytest.approx(by_hand(linear, rho, adaptive), rel=1e-4)


def test_of_a_vit_it_is_that_step_too(subject):
    measure = choose("measure", "sharpness", num_images=100)
    assert measure(subject) == pytest.approx(by_hand(subject, 0.05, False), rel=1e-3)


def test_the_step_is_as_long_as_rho(linear):
    own = parameters(linear.model)
    slopes = {name: torch.randn_like(tensor) for name, tensor in own.items()}
    moved = ascended(own, slopes, Sharpness(rho=0.3))
    length = sum((moved[name] - own[name]).square().sum() for name in own).sqrt()
    assert length.item() == pytest.approx(0.3, rel=1e-4)


def test_where_the_loss_is_flat_there_is_no_step(linear):
    own = parameters(linear.model)
    flat = {name: torch.zeros_like(tensor) for name, tensor in own.items()}
    for adaptive in (False, True):
        moved = ascended(own, flat, Sharpness(adaptive=adaptive))
        assert all(torch.equal(moved[name], own[name]) for name in own)


def test_the_adaptive_step_grows_with_the_parameters(linear):
    """Ten times the weights at a tenth of the slopes: the step is ten times as long."""
    own = parameters(linear.model)
    slopes = {name: torch.randn_like(tensor) for name, tensor in own.items()}
    config = Sharpness(adaptive=True, eta=0)
    step = {n: t - own[n] for n, t in ascended(own, slopes, config).items()}
    large = {n: 10 * t for n, t in own.items()}
    after = ascended(large, {n: s / 10 for n, s in slopes.items()}, config)
    for name in own:
        torch.testing.assert_close(after[name] - large[name], 10 * step[name], rtol=1e-3, atol=1e-5)
