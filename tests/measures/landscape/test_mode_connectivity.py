"""Trained curves between two models."""

from dataclasses import replace

import pytest
import torch

from vitarium.core.config import InvalidConfig
from vitarium.core.registry import choose
from vitarium.evaluation.losses import parameters
from vitarium.measures.landscape._paths import OnPath, losses_along
from vitarium.measures.landscape.barrier import path_losses
from vitarium.measures.landscape.mode_connectivity import ModeConnectivity, curve

TRAINED = {"points": 9, "steps": 60, "lr": 0.01}


def test_a_trained_curve_stays_below_the_straight_line(subject, other):
    config = ModeConnectivity(**TRAINED)
    curve_losses = losses_along(subject, curve(subject, other, config), config.positions, config)
    line = path_losses(subject, other, config.positions, OnPath())
    assert curve_losses.loss.max() < 0.7 * line.loss.max()
    assert torch.equal(curve_losses.loss[[0, -1]], line.loss[[0, -1]])


def test_before_it_is_trained_a_curve_is_the_straight_line(subject, other):
    config = ModeConnectivity(points=5, bends=2, steps=1, lr=1e-12, num_images=50)
    curve_losses = losses_along(subject, curve(subject, other, config), config.positions, config)
    line = path_losses(subject, other, config.positions, OnPath(num_images=50))
    torch.testing.assert_close(curve_losses.loss, line.loss, rtol=1e-5, atol=0)


def test_a_curve_ends_in_the_models_and_keeps_no_gradients(subject, other):
    first, bend, last = curve(subject, other, ModeConnectivity(steps=2))
    for end, model in ((first, subject.model), (last, other.model)):
        assert all(torch.equal(end[name], own) for name, own in parameters(model).items())
    assert all(tensor.grad is None and not tensor.requires_grad for tensor in bend.values())


def test_one_step_moves_the_bends_down_the_slope_of_the_point(linear, softmax_regression):
    """Adam's first step has the length of the learning rate and the gradient's sign."""
    config = ModeConnectivity(steps=1, bends=2, lr=1e-3, train_batch_size=2000)
    controls = curve(linear, linear, config)
    seen = replace(linear, examples=linear.examples.of("train").first(config.train_images))
    slopes = softmax_regression.gradient(seen)
    clear = slopes["1.weight"].abs() > 1e-4
    for bend in controls[1:-1]:
        step = (bend["1.weight"] - controls[0]["1.weight"])[clear]
        expected = -1e-3 * slopes["1.weight"][clear].sign().float()
        torch.testing.assert_close(step, expected, rtol=1e-2, atol=0)


def test_the_value_does_not_depend_on_the_order_of_the_pair(subject, other):
    measure = choose("measure", "mode_connectivity", points=3, steps=5, num_images=50)
    assert measure(subject, other) == measure(other, subject)


def test_another_seed_trains_another_curve(subject, other):
    values = [
        choose("measure", "mode_connectivity", points=3, steps=5, num_images=50, seed=seed)
        for seed in (0, 1)
    ]
    assert values[0](subject, other) != values[1](subject, other)


def test_a_curve_has_a_bend():
    with pytest.raises(InvalidConfig, match="bends"):
        ModeConnectivity.read({"bends": 0})
