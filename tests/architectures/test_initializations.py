"""Initializations: what they reach, and the variance that they give."""

import math

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from vitarium.core import seeds
from vitarium.core.registry import plugins, section
from vitarium.testing import check_initialization


def vit() -> VisionTransformer:
    with seeds.seeded(0):
        return VisionTransformer(
            img_size=32, patch_size=8, embed_dim=128, depth=2, num_heads=4, num_classes=0
        )


def initialized(**settings) -> VisionTransformer:
    model = vit()
    with seeds.seeded(1):
        section("initialization", settings)(model)
    return model


FAN_IN, FAN_OUT = 128, 512  # of the first MLP matrix


@pytest.mark.parametrize(
    ("name", "deviation"),
    [
        ("kaiming_normal", math.sqrt(2 / FAN_IN)),
        ("kaiming_uniform", math.sqrt(2 / FAN_IN)),
        ("xavier_normal", math.sqrt(2 / (FAN_IN + FAN_OUT))),
        ("xavier_uniform", math.sqrt(2 / (FAN_IN + FAN_OUT))),
    ],
)
def test_weights_have_the_published_deviation(name, deviation):
    weight = initialized(name=name).blocks[0].mlp.fc1.weight
    assert weight.std().item() == pytest.approx(deviation, rel=0.02)
    assert abs(weight.mean().item()) < 0.01 * deviation


def test_trunc_normal_is_cut_at_two_deviations():
    weight = initialized(name="trunc_normal", std=0.1).blocks[0].mlp.fc1.weight
    assert weight.abs().max() <= 0.2
    assert weight.std().item() == pytest.approx(0.1 * 0.8796, rel=0.02)  # of the cut normal


def test_kaiming_reaches_the_patch_embedding_and_every_bias():
    before, after = vit(), initialized(name="kaiming_normal", bias=0.01)
    fan_in = 3 * 8 * 8
    found = after.patch_embed.proj.weight.std().item()
    assert found == pytest.approx(math.sqrt(2 / fan_in), rel=0.05)
    changed = {
        n for n, p in after.named_parameters() if not torch.equal(p, before.get_parameter(n))
    }
    layers = {
        name
        for name, parameter in after.named_parameters()
        if "norm" not in name and name not in ("cls_token", "pos_embed")
    }
    assert changed == layers
    for name, parameter in after.named_parameters():
        if name.endswith("bias") and name in layers:
            assert torch.equal(parameter, torch.full_like(parameter, 0.01))


def test_biases_stay_when_none_is_given():
    before, after = vit(), initialized(name="xavier_normal")
    for name, parameter in after.named_parameters():
        if name.endswith("bias"):
            assert torch.equal(parameter, before.get_parameter(name))


def test_mae_takes_the_patch_convolution_for_a_linear_layer_and_draws_tokens():
    with seeds.seeded(0):
        model = VisionTransformer(
            img_size=32, patch_size=8, embed_dim=128, depth=1, num_heads=4, num_classes=9,
            reg_tokens=64,
        )  # fmt: skip
    positions = model.pos_embed.clone()
    with seeds.seeded(1):
        section("initialization", {"name": "mae"})(model)
    for name, layer in model.named_modules():
        if not isinstance(layer, torch.nn.Linear | torch.nn.Conv2d):
            continue
        fan_out, fan_in = layer.weight.flatten(1).shape
        bound = math.sqrt(6 / (fan_in + fan_out))  # of a uniform distribution
        assert 0.98 * bound < layer.weight.abs().max() <= bound, name
        assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05), name
        assert not layer.bias.any(), name
    assert model.cls_token.std().item() == pytest.approx(0.02, rel=0.2)
    assert model.reg_token.std().item() == pytest.approx(0.02, rel=0.03)
    assert torch.equal(model.pos_embed, positions)
    assert bool((model.norm.weight == 1).all())


def test_default_changes_nothing():
    before, after = vit(), initialized(name="default")
    assert all(torch.equal(p, before.get_parameter(n)) for n, p in after.named_parameters())


@pytest.mark.parametrize("name", sorted(plugins("initialization")))
def test_every_initialization_keeps_to_the_contract(name):
    check_initialization(name)
