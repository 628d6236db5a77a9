"""Gaussian mixture masks, against sums by hand, plain attention and published counts."""

import math
from itertools import product

import pytest
import torch
from timm.layers.attention import Attention
from torch.utils.flop_counter import FlopCounterMode

from vitarium import create_model
from vitarium.architectures.attention.gaussian_mixture_mask import (
    FreeMask,
    GaussianMixture,
    MaskedAttention,
)
from vitarium.architectures.patch_tokens import require_plain
from vitarium.core.config import InvalidConfig
from vitarium.core.devices import meta_device
from vitarium.core.errors import InvalidInput
from vitarium.core.registry import section
from vitarium.testing import check_architecture

SIZES = {"img_size": 8, "patch_size": 2, "in_chans": 1, "embed_dim": 12, "num_heads": 3, "depth": 2}


def count(name, **settings):
    with meta_device():
        model = create_model(name, **settings)
    return sum(parameter.numel() for parameter in model.parameters())


def mixture(grid, num_kernels=4, num_heads=3):
    torch.manual_seed(0)
    mask = GaussianMixture(num_kernels, num_heads, grid).double()
    mask.sigma.data = mask.sigma.data / 10
    return mask


def test_free_masks_keep_to_the_contract():
    check_architecture("gaussian_mixture_mask", mask="free")


@pytest.mark.parametrize(
    ("preset", "classes", "parameters"),
    [
        ("gmm_vit_patch4_32", 10, 2_693_122),
        ("gmm_vit_patch4_32", 100, 2_710_492),
        ("gmm_vit_patch8_64", 200, 2_757_440),
    ],
)
def test_parameters_are_as_many_as_published(preset, classes, parameters):
    assert count(preset, num_classes=classes) == parameters


def test_free_masks_have_as_many_parameters_as_published():
    assert count("gmm_vit_patch4_32", num_classes=10, mask="free") == 2_728_906


def test_a_mask_is_the_sum_of_gaussians_of_the_distance():
    grid = (3, 4)
    mask = mixture(grid)
    patches = list(product(range(grid[0]), range(grid[1])))
    for head, (i, a), (j, b) in product(range(3), enumerate(patches), enumerate(patches)):
        squared = (a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2
        expected = sum(
            mask.alpha[k, head].item()
            * math.exp(-squared / (2 * (mask.sigma[k, head].item() ** 2 + 1e-5)))
            for k in range(4)
        )
        assert math.isclose(mask()[head, i, j].item(), expected, abs_tol=1e-12)


def test_masks_are_symmetric_of_the_distance_alone_and_each_patchs_own_is_the_sum_of_alphas():
    mask = mixture((4, 5))
    factors = mask().unflatten(1, (4, 5)).unflatten(3, (4, 5))
    assert torch.equal(mask(), mask().mT)
    assert torch.allclose(mask().diagonal(dim1=1, dim2=2), mask.alpha.sum(0).unsqueeze(1))
    assert torch.equal(factors[:, :3, :4, :3, :4], factors[:, 1:, 1:, 1:, 1:])  # translated
    assert torch.equal(factors[:, 0, 0, 1, 3], factors[:, 0, 3, 1, 0])  # r = sqrt 10, three times
    assert torch.equal(factors[:, 0, 0, 1, 3], factors[:, 0, 0, 3, 1])


def test_large_grids_do_not_underflow():
    mask = GaussianMixture(1, 1, (32, 32))
    mask.alpha.data.fill_(1)
    mask.sigma.data.fill_(10)
    factors = mask()
    assert factors.dtype == torch.float32
    assert (factors > 0).all()  # exp(-r^2) by itself is 0 in float32 from r = 11 on
    assert math.isclose(factors.min().item(), math.exp(-2 * 31**2 / 200.00002), rel_tol=1e-4)


@pytest.mark.parametrize("alphas", [[1.0], [0.5, -2.0, 3.0]])
def test_wide_kernels_scale_logits_by_the_sum_of_alphas(alphas):
    torch.manual_seed(0)
    plain = Attention(12, 3).double()
    plain.fused_attn = False
    masked = MaskedAttention(12, 3).double()
    masked.mask = GaussianMixture(len(alphas), 3, (2, 3)).double()
    masked.load_state_dict(plain.state_dict(), strict=False)
    masked.mask.alpha.data = torch.tensor(alphas).double().unsqueeze(1).expand(-1, 3)
    masked.mask.sigma.data.fill_(1e9)
    plain.scale *= sum(alphas)
    tokens = torch.randn(2, 6, 12, dtype=torch.float64)
    assert torch.allclose(masked(tokens), plain(tokens), atol=1e-12)


def test_masks_multiply_logits_before_the_softmax():
    attention = MaskedAttention(12, 3).double()
    attention.mask = mixture((2, 3))
    maps = []
    attention.attn_drop.register_forward_pre_hook(lambda _, inputs: maps.append(inputs[0]))
    tokens = torch.randn(2, 6, 12, dtype=torch.float64)
    attention(tokens)
    q, k, _ = attention.qkv(tokens).unflatten(-1, (3, 3, 4)).permute(2, 0, 3, 1, 4)
    assert torch.allclose(maps[0], (attention.mask() * (q @ k.mT / 2)).softmax(-1))


def test_free_masks_start_at_uniform_attention():
    model = create_model("gaussian_mixture_mask", mask="free", num_classes=4, **SIZES)
    attention, tokens = model.blocks[0].attn, torch.randn(2, 16, 12)
    assert isinstance(attention.mask, FreeMask)
    values = attention.qkv(tokens)[..., 24:].mean(1, keepdim=True).expand(-1, 16, -1)
    assert torch.allclose(attention(tokens), attention.proj(values), atol=1e-6)


def test_masks_cost_no_products_of_matrices():
    operations = []
    for name in ("vit", "gaussian_mixture_mask"):
        model = create_model(name, class_token=False, global_pool="avg", **SIZES)
        for block in model.blocks:
            block.attn.fused_attn = False
        with FlopCounterMode(display=False) as counter:
            model(torch.randn(1, 1, 8, 8))
        operations.append(counter.get_total_flops())
    assert operations[0] == operations[1]


def test_the_mean_of_the_patches_is_normalized_for_the_head():
    model = create_model("gaussian_mixture_mask", num_classes=4, **SIZES).eval()
    images = torch.randn(3, 1, 8, 8)
    mean = model.forward_features(images).mean(1)
    assert torch.allclose(model(images), model.head(model.fc_norm(mean)), atol=1e-6)


@pytest.mark.parametrize(
    "settings", [{"class_token": True, "global_pool": "token"}, {"reg_tokens": 1}]
)
def test_tokens_on_no_grid_are_refused(settings):
    with pytest.raises(InvalidConfig, match="are on no grid"):
        section("architecture", {"name": "gaussian_mixture_mask", **settings})


def test_a_part_of_the_patches_is_refused():
    model = create_model("gaussian_mixture_mask", **SIZES)
    with pytest.raises(InvalidInput, match="masked modeling needs a plain vision transformer"):
        require_plain(model, "masked modeling")
    with pytest.raises(InvalidInput, match="an attention mask of 16 patches for 9 tokens"):
        model.blocks[0](torch.randn(1, 9, 12))
