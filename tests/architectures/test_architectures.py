"""Architectures: sizes, names and the contract that every registered one keeps."""

import pytest
import timm
import torch
from timm.layers.mlp import Mlp
from timm.models.vision_transformer import VisionTransformer

from vitarium import create_model
from vitarium.architectures.base import architecture
from vitarium.architectures.symmetries.base import Axis
from vitarium.architectures.symmetries.vit import VitDeclaration
from vitarium.architectures.vit.vit import Vit, attend_by_cosines
from vitarium.core import registry
from vitarium.core.config import InvalidConfig
from vitarium.core.devices import meta_device
from vitarium.core.errors import UnknownName
from vitarium.core.registry import section
from vitarium.testing import check_architecture
from vitarium.training._stack_key import why_not_stacked


def count(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", sorted(registry.plugins("architecture")))
def test_every_architecture_keeps_to_the_contract(name):
    check_architecture(name)


def test_a_broken_rule_is_named(monkeypatch):
    def build(config: Vit, num_outputs):
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, num_outputs + 1))

    monkeypatch.setattr(registry, "_plugins", {k: dict(v) for k, v in registry._plugins.items()})
    architecture("wide", tiny={"img_size": 16})(build)
    with pytest.raises(
        AssertionError, match=r"architecture 'wide': outputs are \(2, 6\), not \(2, 5\)"
    ):
        check_architecture("wide")


@pytest.fixture
def own_plugins(monkeypatch):
    """What a test registers is gone after it."""
    registry.plugins("adaptation")  # loaded before, or they would be gone, too
    monkeypatch.setattr(registry, "_plugins", {k: dict(v) for k, v in registry._plugins.items()})


TINY = {"img_size": 16, "patch_size": 8, "embed_dim": 8, "depth": 1, "num_heads": 2}


class Reordered(VitDeclaration):
    """Declares channels of queries and keys that may be mixed, and are scaled one by one."""

    def attention(self, at, attention):
        self.heads_of(at, attention, normed=False)
        for name, weight in attention.named_parameters():
            if "_norm" in name:
                self.piece(f"{at}.{name}", weight.shape, (Axis(),))
        return [(f"{at}.qkv", attention.qkv)]


class FixedHeads(VitDeclaration):
    """Declares heads that may be exchanged, and factors of theirs that stay where they are."""

    def attention(self, at, attention):
        self.heads_of(at, attention, normed=False, logits_of="orthogonal")
        self.piece(f"{at}.q_norm.logit_scale", (attention.num_heads,), (Axis(),))
        return [(f"{at}.qkv", attention.qkv)]


class ChosenByValue(Mlp):
    def forward(self, x):
        return super().forward(x) if x.sum().item() > 0 else x


class Imprecise(Mlp):
    """Divides by 2^-12, which bfloat16 does not tell from 0 beside 1."""

    def forward(self, x):
        hidden = super().forward(x)
        return hidden + 1 / (hidden * 0 + (1 + 2**-12) - 1)


@pytest.mark.parametrize(
    ("parts", "symmetries", "message"),
    [
        (
            {"qk_norm": True},
            Reordered.symmetries,
            r"exchanging units of blocks\.0\.attn\.qk changes",
        ),
        ({"mlp_layer": ChosenByValue}, None, "in a stack: .*item.*trains_singly"),
        ({"mlp_layer": Imprecise}, None, "under bf16 autocast its outputs are not finite"),
    ],
)
def test_what_an_architecture_promises_is_verified(own_plugins, parts, symmetries, message):
    def build(config: Vit, num_outputs):
        return VisionTransformer(**config.arguments(), num_classes=num_outputs, **parts)

    architecture("promising", tiny=TINY, symmetries=symmetries)(build)
    with pytest.raises(AssertionError, match=message):
        check_architecture("promising")


@pytest.mark.parametrize("heads", [2, 4])
def test_no_unit_stays_where_it_is_when_units_are_exchanged(own_plugins, heads):
    """Of two units half of all permutations move none, and show nothing."""

    def build(config: Vit, num_outputs):
        model = VisionTransformer(**config.arguments(), num_classes=num_outputs)
        attend_by_cosines(model)
        return model

    tiny = {**TINY, "depth": 3, "num_heads": heads}
    architecture("fixed", tiny=tiny, symmetries=FixedHeads.symmetries)(build)
    blocks = ", ".join(rf"blocks\.{number}\.attn\.heads" for number in range(3))
    with pytest.raises(AssertionError, match=f"exchanging units of {blocks} changes"):
        check_architecture("fixed")


def test_a_model_says_why_it_is_in_no_stack(own_plugins):
    class Chosen(ChosenByValue):
        trains_singly = "chooses by values"

    def build(config: Vit, num_outputs):
        arguments = config.arguments()
        return VisionTransformer(**arguments, num_classes=num_outputs, mlp_layer=Chosen)

    architecture("choosing", tiny=TINY, symmetries="which values are chosen is not declared")(build)
    check_architecture("choosing")
    reason = why_not_stacked(section("architecture", "choosing"), section("adaptation", "full"))
    assert reason == "blocks.0.mlp chooses by values"


def test_a_misspelled_fact_is_refused():
    with pytest.raises(TypeError, match="symetries"):
        architecture("any", symetries=None)


def test_vit_small_has_the_published_number_of_parameters():
    with meta_device():
        assert count(create_model("vit_small_patch16_224")) == 22_050_664
        assert count(create_model("vit_small_patch16_224", num_classes=100)) == 21_704_164


@pytest.mark.parametrize(
    ("width", "heads", "parameters"),
    [(192, 3, 5_717_416), (384, 6, 22_050_664), (768, 12, 86_567_656)],
)
def test_vit_has_the_published_numbers_of_parameters(width, heads, parameters):
    with meta_device():
        assert count(create_model("vit", embed_dim=width, num_heads=heads)) == parameters


def test_vit_is_timms_model():
    ours = create_model("vit", num_classes=7, embed_dim=192)
    theirs = timm.create_model("vit_tiny_patch16_224", num_classes=7)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    image = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(ours.eval()(image), theirs.eval()(image))


def test_overrides_reach_timm():
    model = create_model("vit_tiny_patch16_224", num_classes=3, img_size=32, patch_size=4, depth=1)
    assert len(model.blocks) == 1
    assert model.patch_embed.num_patches == 64


def test_a_timm_model_knows_its_images():
    def size(**settings):
        return section("architecture", {"name": "timm", **settings}).config.input_size

    assert size(model="vit_small_patch16_224") == (3, 224, 224)
    assert size(model="vit_base_patch16_384") == (3, 384, 384)
    assert size(model="vit_small_patch16_224", img_size=32, in_chans=1, patch_size=4) == (1, 32, 32)


def test_overrides_of_a_timm_model_are_factors():
    chosen = section("architecture", {"name": "timm", "model": "vit_tiny_patch16_224", "depth": 2})
    assert chosen.factors(defaults=False) == {
        "name": "timm",
        "model": "vit_tiny_patch16_224",
        "depth": 2,
    }
    assert hash(chosen) == hash(section("architecture", chosen.factors()))


def test_lists_in_overrides_become_tuples_so_that_equal_settings_are_equal():
    tiny = {"name": "timm", "model": "vit_tiny_patch16_224"}
    one = section("architecture", {**tiny, "img_size": [32, 64]}).config
    other = section("architecture", {**tiny, "img_size": (32, 64)}).config
    assert one == other
    assert hash(one) == hash(other)
    assert one.input_size == (3, 32, 64)
    assert one.factors()["img_size"] == [32, 64]


def test_a_timm_name_may_carry_the_tag_of_published_weights():
    name = "vit_tiny_patch16_224.augreg_in21k"
    chosen = section("architecture", {"name": "timm", "model": name})
    assert chosen.config.input_size == (3, 224, 224)


def test_weights_are_never_downloaded(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a download was tried")

    monkeypatch.setattr("timm.models._builder.load_pretrained", refuse)
    create_model("vit_tiny_patch16_224.augreg_in21k", depth=1)
    with pytest.raises(InvalidConfig, match="unknown factor 'pretrained'"):
        create_model("vit_tiny_patch16_224", pretrained=True)


def test_whether_a_setting_is_refused_does_not_depend_on_what_was_built_before():
    tiny = {"name": "timm", "model": "vit_tiny_patch16_224"}
    section("architecture", {**tiny, "depth": 2})
    with pytest.raises(InvalidConfig, match="timm cannot build"):
        section("architecture", {**tiny, "depth": 2.0})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "timm", "model": "vit_smal_patch16_224"}, "did you mean 'vit_small_patch16_224'"),
        ({"name": "timm", "model": "vit_tiny_patch16_224", "embed_dimm": 3}, "unknown factor 'embed_dimm'; did you mean 'embed_dim'"),
        ({"name": "timm", "model": "vit_tiny_patch16_224", "num_heads": 5}, "timm cannot build"),
        ({"name": "timm", "model": "vit_tiny_patch16_224.augreg"}, "timm cannot build vit_tiny_patch16_224.augreg so: Invalid pretrained tag"),
        ({"name": "timm", "model": "vit_tiny_patch16_224", "img_size": {"a": 1}}, "img_size: {'a': 1} is neither a number"),
        ({"name": "timm", "model": "vit_tiny_patch16_224", "depth": None}, "depth: None is neither a number"),
        ({"name": "timm", "model": "vit_tiny_patch16_224", "mlp_ratio": float("inf")}, "mlp_ratio: inf is not a finite number"),
        ({"name": "vit", "num_heads": 5}, "embed_dim 192 is not divisible by num_heads 5"),
        (  # all of them at once
            {"name": "vit", "num_heads": 5, "img_size": 225, "class_token": False},
            "img_size 225 is not .*; embed_dim 192 is not .*; global_pool 'token' needs",
        ),
        ({"name": "vit", "patch_size": 15}, "img_size 224 is not divisible by patch_size 15"),
        ({"name": "vit", "class_token": False}, "needs the class token"),
        ({"name": "vit", "depth": 0}, "depth: 0 is not greater than 0"),
    ],
)  # fmt: skip
def test_settings_that_build_no_model_are_refused(settings, message):
    with pytest.raises(InvalidConfig, match=message):
        section("architecture", settings)


def test_create_model_names_the_nearest_model():
    with pytest.raises(UnknownName, match="did you mean 'vit_small_patch16_224'"):
        create_model("vit_smal_patch16_224")


def test_create_model_takes_presets(monkeypatch):
    def build(config: Vit, num_outputs):
        return torch.nn.Linear(config.embed_dim, num_outputs)

    monkeypatch.setattr(registry, "_plugins", {k: dict(v) for k, v in registry._plugins.items()})
    architecture("plain", presets={"plain_small": {"embed_dim": 6}})(build)
    assert create_model("plain_small", num_classes=2).in_features == 6
    assert create_model("plain_small", num_classes=2, embed_dim=9).in_features == 9
