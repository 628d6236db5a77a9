"""Schedules agree with torch's own where torch has them."""

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR

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


def test_constant_is_constant():
    assert ours("constant") == [1.0] * STEPS


@pytest.mark.parametrize("name", ["constant", "cosine"])
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
