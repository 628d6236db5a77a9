"""Schedules agree with those of torch and timm."""

import pytest
import torch
from timm import scheduler as timms
from torch.optim.lr_scheduler import CosineAnnealingLR, MultiStepLR, OneCycleLR, StepLR

from vitarium.core.config import InvalidConfig
from vitarium.core.registry import plugins, section
from vitarium.testing import check_schedule

STEPS, PER_EPOCH = 40, 10


def ours(name, **settings):
    schedule = section("schedule", {"name": name, **settings})
    return [schedule(step, STEPS, PER_EPOCH) for step in range(STEPS)]


def torchs(make):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = make(optimizer)
    rates = []
    for _ in range(STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_cosine_is_torchs():
    expected = torchs(lambda o: CosineAnnealingLR(o, STEPS, eta_min=0.1))
    assert ours("cosine", final=0.1) == pytest.approx(expected)


def test_one_cycle_is_torchs():
    expected = torchs(lambda o: OneCycleLR(o, 1.0, total_steps=STEPS, cycle_momentum=False))
    assert ours("one_cycle") == pytest.approx(expected)


def timm_rates(kind, **settings):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = kind(optimizer, t_in_epochs=False, **settings)
    rates = []
    for step in range(STEPS):
        scheduler.step_update(step)
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


def test_steps_are_torchs():
    expected = torchs(lambda o: StepLR(o, 15, gamma=0.3))
    assert ours("step", decay_epochs=1.5, decay_rate=0.3) == pytest.approx(expected)
    expected = torchs(lambda o: MultiStepLR(o, [5, 30], gamma=0.3))
    assert ours("multistep", milestones=[3, 0.5], decay_rate=0.3) == pytest.approx(expected)


def test_polynomial_is_timms():
    expected = timm_rates(timms.PolyLRScheduler, t_initial=STEPS, power=2.5, lr_min=0.1)
    assert ours("polynomial", power=2.5, final=0.1) == pytest.approx(expected)


def test_tanh_is_timms():
    expected = timm_rates(timms.TanhLRScheduler, t_initial=STEPS, lb=-5.0, ub=2.0, lr_min=0.1)
    assert ours("tanh", lower=-5, upper=2, final=0.1) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("shape", "theirs"), [("sqrt", "1-sqrt"), ("linear", "linear"), ("cosine", "cosine")]
)
def test_warmup_stable_decay_is_timms(shape, theirs):
    settings = {"t_initial": STEPS, "decay_t": 12, "lr_min": 0.1, "decay_fn": theirs}
    expected = timm_rates(timms.WSDLRScheduler, **settings)
    assert ours("warmup_stable_decay", decay=0.3, shape=shape, final=0.1) == pytest.approx(expected)


def test_the_inverse_square_root_halves_after_three_timescales_and_cools_down_to_zero():
    rates = ours("inverse_sqrt", warmup_epochs=0.5, timescale_epochs=0.5)
    assert rates[5] == 1.0
    assert rates[5 + 15] == pytest.approx(0.5)
    cooled = ours("inverse_sqrt", warmup_epochs=0.5, timescale_epochs=0.5, cooldown_epochs=1)
    assert cooled[:31] == pytest.approx(rates[:31])
    left = [(STEPS - step) / 10 for step in range(30, STEPS)]
    assert cooled[30:] == pytest.approx(
        [r * share for r, share in zip(rates[30:], left, strict=True)]
    )


def test_a_tangent_that_does_not_fall_is_refused():
    with pytest.raises(InvalidConfig, match="lower, 3, is not below upper, 2"):
        section("schedule", {"name": "tanh", "lower": 3, "upper": 2})


def test_constant_is_constant():
    assert ours("constant") == [1.0] * STEPS


@pytest.mark.parametrize(
    "name",
    ["constant", "cosine", "polynomial", "warmup_stable_decay", "inverse_sqrt", "step"],
)
def test_warm_up_rises_linearly_and_is_over_in_time(name):
    rates = ours(name, warmup_epochs=1)
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10] == 1.0


def test_a_negative_warm_up_is_refused():
    with pytest.raises(InvalidConfig, match="warmup_epochs"):
        section("schedule", {"name": "cosine", "warmup_epochs": -1})


@pytest.mark.parametrize("name", sorted(plugins("schedule")))
def test_every_schedule_keeps_to_the_contract(name):
    check_schedule(name)
