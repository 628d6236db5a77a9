"""Models of timm by name, of each family that studies use: built, trained a step, saved, exported,
stacked; aligned, or refused by name. Tiny, with overrides; the published sizes without memory."""

import pytest
import timm
import torch
from safetensors.torch import load, save

from reference.timm_families import FAMILIES
from vitarium import create_model
from vitarium.architectures.features import blocks, features
from vitarium.architectures.heads import head_prefix
from vitarium.architectures.symmetries.vit import vit_symmetries
from vitarium.core import seeds
from vitarium.core.config import InvalidConfig
from vitarium.core.devices import meta_device
from vitarium.core.errors import IncompatibleWeights, InvalidInput
from vitarium.core.registry import choose, section
from vitarium.testing._execution import check_bf16, check_stack
from vitarium.testing._rules import Contract

LARGEST_IN_STACK = 200_000  # parameters, so that the test is fast
COUNTS = {
    ("vitamin_small_224", 0): 21_877_696,
    ("vitamin_small_224", 768): 22_173_376,
    ("vitamin_base_224", 0): 87_132_032,
    ("vitamin_base_224", 768): 87_722_624,
    ("vitamin_large_224", 768): 333_318_816,
    ("vitamin_large2_224", 1024): 333_581_216,
    ("vitamin_xlarge_256", 1152): 436_055_232,
    ("tf_efficientnetv2_b0", 1000): 7_139_704,
    ("tf_efficientnetv2_b1", 1000): 8_141_052,
    ("tf_efficientnetv2_b2", 1000): 10_096_086,
    ("tf_efficientnetv2_b3", 1000): 14_358_406,
    ("efficientnetv2_s", 1000): 21_458_488,
    ("efficientnetv2_m", 1000): 54_139_356,
    ("efficientnetv2_l", 1000): 118_515_272,
    ("efficientnetv2_xl", 1000): 208_119_808,
    ("efficientnetv2_rw_t", 1000): 13_649_388,
    ("efficientnetv2_rw_s", 1000): 23_941_296,
    ("efficientnetv2_rw_m", 1000): 53_236_442,
    ("swinv2_tiny_window8_256", 1000): 28_347_154,
    ("deit3_small_patch16_224", 1000): 22_059_496,
    ("eva02_tiny_patch14_224", 0): 5_502_144,
    ("eva02_small_patch14_224", 0): 21_621_120,
    ("hiera_tiny_224", 1000): 27_910_216,
    ("tiny_vit_5m_224", 1000): 5_392_764,
    ("tiny_vit_11m_224", 1000): 10_996_972,
    ("tiny_vit_21m_224", 1000): 21_198_568,
    ("vit_base_patch16_siglip_224", 0): 92_884_224,
    ("vit_small_patch14_dinov2", 0): 22_056_192,
    ("vit_small_patch14_reg4_dinov2", 0): 22_057_344,
    ("vit_base_patch16_dinov3", 0): 85_641_216,
    ("vit_small_patch16_dinov3", 0): 21_586_944,
    ("levit_128s", 1000): 7_777_058,
    ("resnet18", 1000): 11_689_512,
}
"""Parameters of the published models by name and number of classes."""


@pytest.mark.parametrize(("name", "num_classes"), COUNTS)
def test_published_sizes(name, num_classes):
    with meta_device():
        model = create_model(name, num_classes=num_classes)
    assert sum(p.numel() for p in model.parameters()) == COUNTS[name, num_classes]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_built_trained_saved_exported_and_stacked(name):
    overrides, _ = FAMILIES[name]
    rule = Contract("architecture", "vit")
    rule.section = chosen = choose("architecture", "timm", model=name, **overrides)
    with seeds.seeded(0):
        model, images = chosen(5), torch.randn(4, *chosen.config.input_size)
    start = {n: p.detach().clone() for n, p in model.named_parameters()}
    check_bf16(rule, model, images)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    torch.nn.functional.cross_entropy(model(images), torch.arange(4)).backward()
    optimizer.step()
    assert any(not torch.equal(start[n], p) for n, p in model.named_parameters())

    timm_name, arguments = chosen.facts["timm"](chosen.config)
    exported = timm.create_model(timm_name, num_classes=5, **arguments)
    exported.load_state_dict(load(save(model.state_dict())), strict=True)
    with torch.no_grad():
        outputs = model.eval()(images)
        assert torch.equal(exported.eval()(images), outputs)
        assert torch.equal(model(images), outputs)
        assert features(model, images).shape == (4, model.head_hidden_size)
    assert dict(model.named_modules())[head_prefix(model)] is not None
    if sum(weight.numel() for weight in start.values()) <= LARGEST_IN_STACK:
        check_stack(rule, images, 5)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_aligned_or_refused_by_name(name):
    overrides, reason = FAMILIES[name]
    with meta_device():
        model = choose("architecture", "timm", model=name, **overrides)(5)
    if not reason:
        assert {"stream", "blocks.0.mlp"} <= vit_symmetries(model).groups.keys()
        return
    with pytest.raises(IncompatibleWeights, match=reason):
        vit_symmetries(model)


def test_a_network_of_convolutions_takes_images_of_any_size_that_is_not_too_small():
    def images_of(**settings):
        return section("architecture", {"name": "timm", "model": "resnet10t", **settings}).config

    assert images_of().input_size == (3, 176, 176)
    assert images_of(img_size=32, in_chans=1).input_size == (1, 32, 32)
    assert images_of(img_size=[32, 64]).input_size == (3, 32, 64)
    assert images_of(img_size=32, in_chans=1).arguments == {"in_chans": 1}
    with pytest.raises(InvalidConfig, match="unknown factor 'patch_size'"):
        images_of(patch_size=4)
    with pytest.raises(InvalidConfig, match="timm cannot build tiny_vit_5m_224 so"):
        section("architecture", {"name": "timm", "model": "tiny_vit_5m_224", "img_size": -3})


def test_a_model_without_blocks_is_refused_where_blocks_are_needed():
    with meta_device():
        model = create_model("resnet10t", num_classes=5)
    with pytest.raises(InvalidInput, match="ResNet has no blocks"):
        blocks(model)
