"""Optimizers are torch's, with the settings of the blueprint."""

import pytest
import torch

from vitarium.core.config import InvalidConfig
from vitarium.core.registry import plugins, section
from vitarium.testing import check_optimizer


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
