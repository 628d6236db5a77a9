"""ViTs with blocks of different widths, and with heads that do not fill the width."""

import pytest
import torch

from reference import random_moves
from vitarium import create_model
from vitarium.architectures.symmetries.base import moved
from vitarium.core.config import InvalidConfig
from vitarium.core.registry import get
from vitarium.testing import check_architecture

SIZES = {"img_size": 8, "patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 3}


def test_with_the_sizes_of_a_plain_vit_it_computes_what_that_does():
    plain = create_model("vit", num_classes=3, act_layer="silu", qkv_bias=False, **SIZES).eval()
    uneven = create_model(
        "uneven_vit",
        num_classes=3,
        head_dim=4,
        hidden=(48, 48),
        act_layer="silu",
        qkv_bias=False,
        **SIZES,
    ).eval()
    uneven.load_state_dict(plain.state_dict())
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(uneven(images), plain(images))


def test_sizes_are_those_of_each_block():
    model = create_model("uneven_vit", head_dim=5, hidden=(7, 9), **SIZES | {"num_heads": 2})
    assert [block.mlp.fc1.out_features for block in model.blocks] == [7, 9]
    assert {block.attn.qkv.out_features for block in model.blocks} == {3 * 2 * 5}
    assert model.blocks[0].attn.scale == 5**-0.5


def test_channels_that_are_left_of_heads_keep_the_scale_of_the_logits():
    sizes = {"heads": (1, 3), "qk_dims": (2, 4), "v_dims": (4, 3)}
    model = create_model("uneven_vit", num_classes=3, **sizes, **SIZES).double().eval()
    assert [block.attn.scale for block in model.blocks] == [4**-0.5] * 2
    assert [block.attn.qk.out_features for block in model.blocks] == [2 * 1 * 2, 2 * 3 * 4]
    attention, tokens = model.blocks[1].attn, torch.randn(2, 5, 12, dtype=torch.float64)
    queries, keys = attention.qk(tokens).chunk(2, dim=-1)
    attended = []
    for head in range(3):
        q, k = (t[..., 4 * head : 4 * head + 4] for t in (queries, keys))
        values = attention.v(tokens)[..., 3 * head : 3 * head + 3]
        attended.append((q @ k.mT / 2).softmax(-1) @ values)
    expected = attention.proj(torch.cat(attended, dim=-1))
    torch.testing.assert_close(attention(tokens), expected, rtol=0, atol=1e-12)


def test_with_heads_and_channels_of_blocks_it_keeps_to_the_contract():
    check_architecture("uneven_vit", heads=(1, 2), qk_dims=(3, 5), v_dims=(5, 2))


def test_weights_are_drawn_as_timm_draws_those_of_a_plain_vit():
    torch.manual_seed(0)
    wide = {"embed_dim": 64, "num_heads": 4}
    model = create_model("uneven_vit", head_dim=32, hidden=(200, 100), **SIZES | wide)
    for block in model.blocks:
        for layer in (block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2):
            assert abs(layer.weight.std().item() - 0.02) < 0.002
            assert not layer.bias.any()


def test_as_many_widths_as_blocks_are_needed():
    with pytest.raises(InvalidConfig, match="hidden has 3 numbers for 2 blocks"):
        create_model("uneven_vit", hidden=(7, 9, 9), **SIZES)


def test_moving_its_symmetries_keeps_its_outputs():
    sizes = {"head_dim": 5, "hidden": (7, 9), "num_classes": 3, **SIZES}
    model = random_moves.scrambled(create_model("uneven_vit", **sizes), 0).double()
    symmetries = get("architecture", "uneven_vit").facts["symmetries"](model)
    moves = random_moves.random_moves(symmetries, torch.Generator().manual_seed(0))
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    outputs = model(images)
    weights = moved(symmetries, model.state_dict(), moves)
    assert not torch.equal(weights["blocks.1.mlp.fc1.weight"], model.blocks[1].mlp.fc1.weight)
    model.load_state_dict(weights)
    torch.testing.assert_close(model(images), outputs, rtol=0, atol=1e-10)
