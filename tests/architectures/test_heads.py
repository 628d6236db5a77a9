"""Heads: where they stand, how they are named, what they start from."""

import pytest
import timm
import torch
from torch import nn

from vitarium.architectures.heads import head_prefix, is_head
from vitarium.blueprint import Recipe
from vitarium.core import seeds
from vitarium.core.errors import InvalidInput
from vitarium.core.registry import plugins, section
from vitarium.testing import check_head

VIT = {"name": "vit", "img_size": 8, "patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2}


def recipe(**settings) -> Recipe:
    return Recipe.read(
        {"architecture": VIT, "data": "digits", "epochs": 1, "batch_size": 2, **settings}
    )


def test_a_linear_head_has_timms_names():
    names = {n for n, _ in recipe().build(7).named_parameters() if n.startswith("head")}
    assert names == {"head.weight", "head.bias"}


def test_a_linear_head_makes_timms_published_model_again():
    model = timm.create_model("vit_small_patch16_224", num_classes=3)
    section("head", "linear")(model, 1000)
    assert sum(p.numel() for p in model.parameters()) == 22_050_664
    theirs = timm.create_model("vit_small_patch16_224")
    assert theirs.load_state_dict(model.state_dict(), strict=True)


@pytest.mark.parametrize(
    ("head", "outputs"), [("linear", 6), ({"name": "mlp", "hidden_dim": 5}, 6), ("none", 192)]
)
def test_a_model_knows_how_many_outputs_its_head_has(head, outputs):
    model = timm.create_model("vit_tiny_patch16_224", depth=1)
    section("head", head)(model, 6)
    assert model.num_classes == outputs
    assert model(torch.randn(1, 3, 224, 224)).shape == (1, outputs)


def test_an_mlp_head_has_the_published_zoos_names_and_shapes():
    model = recipe(head={"name": "mlp", "hidden_dim": 5, "activation": "gelu"}).build(7)
    shapes = {n: tuple(p.shape) for n, p in model.named_parameters() if n.startswith("head")}
    assert shapes == {
        "head.0.weight": (5, 16),
        "head.0.bias": (5,),
        "head.2.weight": (7, 5),
        "head.2.bias": (7,),
    }
    assert isinstance(model.head[1], nn.GELU)


def test_without_a_head_the_features_are_the_outputs():
    assert recipe(head="none", objective="simclr").build(7)(torch.randn(2, 3, 8, 8)).shape == (
        2,
        16,
    )


@pytest.mark.parametrize(
    ("name", "place"),
    [("vit_tiny_patch16_224", "head"), ("swin_tiny_patch4_window7_224", "head.fc")],
)
def test_the_head_stands_where_timm_has_its_classifier(name, place):
    model = timm.create_model(name, num_classes=3)
    assert head_prefix(model) == place
    section("head", {"name": "mlp", "hidden_dim": 4})(model, 6)
    assert model(torch.randn(1, 3, 224, 224)).shape == (1, 6)
    assert is_head(model, f"{place}.0.weight")
    assert not is_head(model, "norm.weight")


def test_a_model_with_two_heads_is_refused():
    with pytest.raises(InvalidInput, match="several heads"):
        head_prefix(timm.create_model("deit_tiny_distilled_patch16_224"))


def test_the_heads_own_seed_changes_the_head_alone():
    one, other = (
        recipe(seed=1).build(7),
        recipe(seed=1, head={"name": "linear", "seed": 9}).build(7),
    )
    assert torch.equal(one.blocks[0].attn.qkv.weight, other.blocks[0].attn.qkv.weight)
    assert not torch.equal(one.head.weight, other.head.weight)


def test_equal_head_seeds_give_equal_heads_on_different_models():
    head = {"name": "linear", "seed": 9}
    one, other = recipe(seed=1, head=head).build(7), recipe(seed=2, head=head).build(7)
    assert torch.equal(one.head.weight, other.head.weight)
    assert not torch.equal(one.blocks[0].attn.qkv.weight, other.blocks[0].attn.qkv.weight)


def test_a_heads_default_initialisation_is_pytorchs():
    model = recipe(initialization={"name": "kaiming_normal", "bias": 0.01}).build(7)
    with seeds.seeded(seeds.derive(0, "head")):
        expected = nn.Linear(16, 7)
    assert torch.equal(model.head.weight, expected.weight)
    assert torch.equal(model.head.bias, expected.bias)


def test_building_leaves_the_generators_alone():
    with seeds.seeded(5):
        expected = torch.rand(2)
    with seeds.seeded(5):
        recipe().build(3)
        assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize("name", sorted(plugins("head")))
def test_every_head_keeps_to_the_contract(name):
    check_head(name)
