"""Shifted patches and locality self-attention, against plain ones and formulas by hand."""

import pytest
import torch
from timm.layers.attention import Attention
from torch import nn

from vitarium import create_model
from vitarium.architectures.attention.spt_lsa import LocalityAttention, ShiftedPatchEmbed
from vitarium.architectures.patch_tokens import require_plain
from vitarium.core.config import InvalidConfig
from vitarium.core.devices import meta_device
from vitarium.core.errors import InvalidInput
from vitarium.core.registry import section
from vitarium.evaluation.attention import watch
from vitarium.testing import check_architecture

SIZES = {"img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 12, "num_heads": 3, "depth": 2}
NEITHER = {"shifted_patches": False, "locality_attention": False}


def count(name, **settings):
    with meta_device():
        model = create_model(name, **settings)
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    "settings", [{"shifted_patches": False}, {"locality_attention": False}, NEITHER]
)
def test_each_part_by_itself_keeps_to_the_contract(settings):
    check_architecture("spt_lsa", **settings)


@pytest.mark.parametrize(
    ("preset", "classes", "neither", "both"),
    [
        ("sl_vit_patch4_32", 10, 2_692_426, 2_729_878),
        ("sl_vit_patch4_32", 100, 2_709_796, 2_747_248),
        ("sl_vit_patch8_64", 200, 2_756_744, 2_906_228),
    ],
)
def test_parameters_are_as_many_as_published(preset, classes, neither, both):
    assert count(preset, num_classes=classes) == both
    assert count(preset, num_classes=classes, **NEITHER) == neither
    assert count(preset, num_classes=classes, shifted_patches=False) == neither + 9 * 12


def test_without_either_it_is_the_vit_of_the_same_seed():
    images, outputs = torch.randn(3, 1, 8, 8), []
    for name, settings in (("vit", {}), ("spt_lsa", NEITHER)):
        torch.manual_seed(3)
        outputs.append(create_model(name, num_classes=4, **SIZES, **settings).eval()(images))
    assert torch.equal(*outputs)


def test_no_token_attends_to_itself_and_probabilities_sum_to_one():
    model, maps = create_model("spt_lsa", num_classes=4, **SIZES), []
    watch(model, torch.randn(2, 1, 8, 8), lambda _, probabilities: maps.append(probabilities))
    assert len(maps) == 2
    for probabilities in maps:
        assert probabilities.shape == (2, 3, 5, 5)  # the class token is one of them
        assert (probabilities.diagonal(dim1=-2, dim2=-1) == 0).all()
        assert torch.allclose(probabilities.sum(-1), torch.ones(2, 3, 5))


@pytest.mark.parametrize("fused", [True, False])
def test_it_starts_as_scaled_attention_to_all_others(fused):
    attention = LocalityAttention(12, 3, qkv_bias=True).double()
    attention.fused_attn = fused
    tokens = torch.randn(2, 6, 12, dtype=torch.float64)
    q, k, v = attention.qkv(tokens).unflatten(-1, (3, 3, 4)).permute(2, 0, 3, 1, 4)
    weights = (q @ k.mT / 2).exp() * (1 - torch.eye(6, dtype=torch.float64))
    attended = weights / weights.sum(-1, keepdim=True) @ v
    expected = attention.proj(attended.transpose(1, 2).flatten(2))
    assert torch.allclose(attention(tokens), expected, atol=1e-12)


def test_each_head_has_its_temperature():
    attention = LocalityAttention(12, 3).double()
    attention.q_norm.temperature.data = torch.tensor([0.0, 0.5, 2.0]).double()
    attention.fused_attn = False
    maps = []
    attention.attn_drop.register_forward_pre_hook(lambda _, inputs: maps.append(inputs[0]))
    tokens = torch.randn(2, 4, 12, dtype=torch.float64)
    attention(tokens)
    q, k, _ = attention.qkv(tokens).unflatten(-1, (3, 3, 4)).permute(2, 0, 3, 1, 4)
    logits = (q @ k.mT)[:, 2] * 2
    logits.diagonal(dim1=-2, dim2=-1).fill_(-torch.inf)
    assert torch.allclose(maps[0][:, 0], (1 - torch.eye(4).double()) / 3)
    assert torch.allclose(maps[0][:, 2], logits.softmax(-1))


def test_the_only_token_attends_to_itself():
    torch.manual_seed(0)
    plain, local = Attention(12, 3), LocalityAttention(12, 3)
    local.load_state_dict(plain.state_dict(), strict=False)
    tokens = torch.randn(2, 1, 12)
    assert torch.allclose(local(tokens), plain(tokens))


def test_the_mask_does_not_overflow_in_half_precision():
    attention = LocalityAttention(12, 3).half()
    attention.fused_attn = False
    assert attention(torch.randn(2, 4, 12).half()).isfinite().all()


def test_another_mask_is_refused():
    with pytest.raises(InvalidInput, match="takes no other"):
        LocalityAttention(12, 3)(torch.randn(1, 4, 12), is_causal=True)


def test_with_the_images_own_channels_alone_and_no_norm_it_is_the_plain_embedding():
    embedding = ShiftedPatchEmbed(12, 4, 3, 7, norm_eps=1e-6).double()
    embedding.pixel_norm = nn.Identity()
    kernel = torch.randn(7, 3, 4, 4, dtype=torch.float64)
    by_pixel = torch.zeros(7, 4, 4, 15, dtype=torch.float64)
    by_pixel[..., :3] = kernel.permute(0, 2, 3, 1)
    embedding.proj.weight.data = by_pixel.flatten(1)
    images = torch.randn(2, 3, 12, 12, dtype=torch.float64)
    expected = nn.functional.conv2d(images, kernel, embedding.proj.bias, stride=4)
    assert torch.allclose(embedding(images), expected.flatten(2).mT, atol=1e-12)


def test_pixels_are_normalized_patch_by_patch():
    embedding = ShiftedPatchEmbed(8, 4, 1, 7, norm_eps=1e-6).double()
    seen = []
    embedding.proj.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    embedding(3 + 2 * torch.randn(2, 1, 8, 8, dtype=torch.float64))
    assert seen[0].shape == (2, 4, 80)
    assert torch.allclose(seen[0].mean(-1), torch.zeros(2, 4).double(), atol=1e-12)
    assert torch.allclose(seen[0].var(-1, correction=0), torch.ones(2, 4).double(), atol=1e-5)


@pytest.mark.parametrize("patch", [4, 5])
def test_an_image_shifted_by_half_a_patch_has_its_copies_exchanged_in_the_interior(patch):
    shift, side = patch // 2, 3 * patch
    embedding = ShiftedPatchEmbed(side, patch, 1, 7, norm_eps=1e-6)
    image = torch.randn(1, 1, side, side)
    lower_right = torch.roll(image, (shift, shift), (2, 3))
    interior = slice(2 * shift, side - 2 * shift)

    def channels(pixels):
        return embedding.shifted(pixels)[0, :, interior, interior]

    before, after = channels(image), channels(lower_right)
    assert torch.equal(after[0], before[1])  # from the upper left
    assert torch.equal(after[4], before[0])  # from the lower right
    assert (embedding.shifted(image)[0, 1, :shift] == 0).all()


def test_patches_that_overlap_cannot_be_hidden_from_others():
    shifted, plain = (
        create_model("spt_lsa", shifted_patches=shifts, **SIZES) for shifts in (True, False)
    )
    with pytest.raises(InvalidInput, match="masked modeling needs patches"):
        require_plain(shifted, "masked modeling")
    assert require_plain(plain, "masked modeling") is plain


def test_patches_of_a_pixel_cannot_be_shifted():
    with pytest.raises(InvalidConfig, match="have no half to be shifted by"):
        section("architecture", {"name": "spt_lsa", "img_size": 4, "patch_size": 1})


def test_an_image_of_another_size_is_refused():
    with pytest.raises(InvalidInput, match="images of 12x8 pixels for a model of 8x8"):
        create_model("spt_lsa", **SIZES)(torch.randn(1, 1, 12, 8))
