"""What holds for every weight encoder that is registered, by `vitarium.testing`."""

import pytest
import torch

from vitarium.core import registry
from vitarium.core.config import Config, NoConfig
from vitarium.encoders.base import Weights, weight_encoder
from vitarium.testing import check_weight_encoder


@pytest.mark.parametrize("name", registry.plugins("weight_encoder"))
def test_each_keeps_to_the_contract(grown_zoo, name):
    check_weight_encoder(name, grown_zoo)


def test_a_tiny_zoo_is_grown_where_none_is_given():
    check_weight_encoder("layer_quantiles")


@pytest.fixture
def made_up(monkeypatch):
    """Registers an encoder for a test."""
    registry.plugins("weight_encoder")
    copies = {kind: dict(plugins) for kind, plugins in registry._plugins.items()}
    monkeypatch.setattr(registry, "_plugins", copies)
    return weight_encoder("made_up", title="made up")


def norms(weights: Weights) -> torch.Tensor:
    return torch.stack([tensor.norm() for _, tensor in weights.floats()])


BROKEN = {
    "same bits": lambda weights: norms(weights) + torch.rand(()),
    "tell models apart": lambda weights: torch.zeros(3),
    r"real numbers \[dim\]": lambda weights: norms(weights)[None],
    "finite": lambda weights: norms(weights) / 0,
    "NotApplicable": lambda weights: torch.stack([t.nan_to_num().norm() for t in weights.values()]),
    "leaves weights": lambda weights: torch.stack([t.abs_().sum() for t in weights.values()]),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_what_breaks_the_contract_is_named(made_up, grown_zoo, rule):
    @made_up
    def broken(config: NoConfig, weights: Weights):
        """Norms of tensors, in a way that breaks a rule."""
        return BROKEN[rule](weights)

    with pytest.raises(AssertionError, match=f"weight_encoder 'made_up': .*{rule}"):
        check_weight_encoder("made_up", grown_zoo)


def test_facts_are_typed_and_settings_not_called_like_parameters(made_up):
    with pytest.raises(TypeError, match="any_architecture"):
        weight_encoder("wrong", title="wrong", any_architecture="yes")

    class Wrong(Config):
        epochs: int = 3
        """Of what."""

    with pytest.raises(TypeError, match="call the settings"):

        @made_up
        def wrong(config: Wrong, weights: Weights): ...
