"""L2ViT: counts, windows and linear attention by brute force, and what its parts leave alone."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vitarium import create_model
from vitarium.architectures.attention._concentration import (
    Concentration,
    GlobalAttention,
    GlobalBlock,
    LocalBlock,
    WindowAttention,
)
from vitarium.architectures.attention.l2vit import L2VitDeclaration
from vitarium.core.config import InvalidConfig
from vitarium.core.devices import meta_device

TINY = {
    "img_size": 16,
    "patch_size": 2,
    "in_chans": 1,
    "embed_dim": 8,
    "depths": (2, 2),
    "num_heads": (2, 2),
}


def drawn(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("l2vit_tiny_224", 28_596_781),
        ("l2vit_small_224", 50_199_157),
        ("l2vit_base_224", 88_577_188),
        ("l2vit_base_384", 88_577_188),
    ],
)
def test_presets_have_the_published_numbers_of_parameters(name, parameters):
    with meta_device():
        assert count(create_model(name)) == parameters


def test_parts_have_the_published_numbers_of_parameters():
    with meta_device():
        model = create_model("l2vit_tiny_224")
    local_blocks = [113_760, 448_704, 1_782_144, 7_103_232]
    global_blocks = [122_787, 466_758, 1_818_252, 7_175_448]
    for stage, *counts in zip(model.stages, local_blocks, global_blocks, strict=True):
        assert [count(block) for block in stage.blocks] == counts * (len(stage.blocks) // 2)
        kinds = [type(block) for block in stage.blocks]
        assert kinds == [LocalBlock, GlobalBlock] * (len(kinds) // 2)
    assert count(model.patch_embed) == 43_392
    merges = [count(stage.downsample) for stage in model.stages]
    assert merges == [0, 74_112, 295_680, 1_181_184]


def linear(least=1e-6, tau=None):
    torch.manual_seed(0)
    module = GlobalAttention(6, 2).double()
    module.min_denominator = least
    if tau is not None:
        nn.init.constant_(module.temperature, tau)
    return module


def weights_by_hand(module, tokens, least):
    """Products of queries and keys first: [batch, heads, n, n], and values."""
    split = module.qkv(tokens).reshape(*tokens.shape[:2], 3, 2, 3).permute(2, 0, 3, 1, 4)
    query, key, value = split[0].clamp_min(0), split[1].clamp_min(0), split[2]
    products = torch.einsum("bhic,bhjc->bhij", query, key)
    return module.temperature * products / products.sum(-1, keepdim=True).clamp_min(least), value


@pytest.mark.parametrize("least", [1e-6, 0.5, 100.0])
def test_linear_attention_is_that_of_products_first(least):
    module, maps = linear(least), drawn(2, 3, 4, 6)
    weights, value = weights_by_hand(module, maps.flatten(1, 2), least)
    mixed = (weights @ value).transpose(1, 2).reshape(2, 12, 6)
    expected = module.proj(mixed).view_as(maps)
    torch.testing.assert_close(module(maps), expected, rtol=0, atol=1e-12)


def test_rows_of_linear_attention_sum_to_tau_where_nothing_is_clamped():
    module, tokens = linear(tau=0.7), drawn(2, 12, 6)
    weights, _ = weights_by_hand(module, tokens, 1e-6)
    read = weights.sum(-1)
    assert (weights >= 0).all()
    torch.testing.assert_close(read[read > 0], torch.full_like(read[read > 0], 0.7))
    # values of ones come out as tau, through the module itself
    ones = torch.ones(2, 2, 12, 3).double()
    torch.testing.assert_close(module.attend(ones, ones, ones), 0.7 * ones)


def test_weights_of_linear_attention_are_not_negative():
    module = linear(tau=0.7)
    query, key = drawn(2, 2, 12, 3), drawn(2, 2, 12, 3, seed=1)
    weights = module.attend(query, key, torch.eye(12).double().expand(2, 2, 12, 12))
    assert (weights >= 0).all()
    assert (weights > 0).any(-1).double().mean() > 0.5


def test_the_cost_of_linear_attention_is_linear_in_the_number_of_patches():
    costs = []
    for rows in (2, 4, 8):
        with FlopCounterMode(display=False) as counter:
            linear()(drawn(1, rows, 6, 6))
        costs.append(counter.get_total_flops())
    assert costs[2] == 2 * costs[1] == 4 * costs[0] > 0


def test_the_released_denominator_lets_outputs_grow_with_the_number_of_tokens():
    outputs = [
        linear(100.0).attend(*[torch.ones(1, 2, n, 3).double()] * 3)[0, 0, 0, 0] for n in (4, 8)
    ]
    torch.testing.assert_close(outputs[1], 2 * outputs[0])


def test_the_order_of_tokens_does_not_count_in_linear_attention():
    module, maps, order = linear(), drawn(2, 1, 12, 6), torch.randperm(12)
    torch.testing.assert_close(module(maps[:, :, order]), module(maps)[:, :, order])


def test_windows_attend_by_themselves_and_padding_is_attended_to():
    torch.manual_seed(0)
    module, maps = WindowAttention(6, 2).double(), drawn(2, 5, 3, 6)
    module.window = 3
    expected = torch.zeros_like(maps)
    padded = torch.zeros(2, 6, 3, 6).double()
    padded[:, :5] = maps
    for top in (0, 3):
        tokens = padded[:, top : top + 3].reshape(2, 9, 6)
        split = module.qkv(tokens).reshape(2, 9, 3, 2, 3).permute(2, 0, 3, 1, 4)
        logits = split[0] @ split[1].transpose(-2, -1) / 3**0.5
        mixed = (logits.softmax(-1) @ split[2]).transpose(1, 2).reshape(2, 9, 6)
        attended = module.proj(mixed).view(2, 3, 3, 6)
        expected[:, top : top + 3] = attended[:, : 5 - top]
    torch.testing.assert_close(module(maps), expected, rtol=0, atol=1e-12)
    module.fused_attn = False
    torch.testing.assert_close(module(maps), expected, rtol=0, atol=1e-12)


def test_windows_are_cut_along_both_axes():
    torch.manual_seed(0)
    module, maps = WindowAttention(6, 2).double(), drawn(1, 4, 4, 6)
    module.window = 2
    by_window = torch.zeros_like(maps)
    for top in (0, 2):
        for left in (0, 2):
            rows, columns = slice(top, top + 2), slice(left, left + 2)
            by_window[:, rows, columns] = module(maps[:, rows, columns])
    torch.testing.assert_close(module(maps), by_window, rtol=0, atol=1e-12)


def global_block(mlp_ratio=2.0):
    torch.manual_seed(1)
    block = GlobalBlock(linear(), mlp_ratio, 0.0, 0.0).double()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)
    return block.eval()


def test_without_local_concentration_it_is_a_plain_block():
    block, maps = global_block(), drawn(2, 3, 4, 6)
    nn.init.zeros_(block.concentration.conv2.weight)
    nn.init.zeros_(block.concentration.conv2.bias)
    positioned = maps + block.position(maps.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    attended = positioned + block.attn(block.norm1(positioned))
    expected = attended + block.mlp(block.norm2(attended))
    torch.testing.assert_close(block(maps), expected)


def test_local_concentration_is_two_convolutions_of_7_with_gelu_and_normalization_between():
    module = Concentration(3).double().eval()
    module.bn.running_mean.copy_(drawn(3, seed=1))
    module.bn.running_var.copy_(drawn(3, seed=2).abs())
    maps = drawn(2, 4, 5, 3)
    mean, deviation = module.bn.running_mean, (module.bn.running_var + 1e-5).sqrt()
    hidden = nn.functional.gelu(module.conv1(maps.permute(0, 3, 1, 2)))
    hidden = (hidden - mean.view(3, 1, 1)) / deviation.view(3, 1, 1)
    torch.testing.assert_close(module(maps), module.conv2(hidden).permute(0, 2, 3, 1))
    assert module.conv1.kernel_size == module.conv2.kernel_size == (7, 7)
    assert module.conv1.groups == 3


@pytest.mark.parametrize(("stride", "sides"), [(1, [16, 8]), (2, [8, 4]), (4, [4, 2])])
def test_maps_shrink_by_the_stem_and_by_half_between_stages(stride, sides):
    model, shapes = create_model("l2vit", **TINY | {"patch_size": stride}), []
    for stage in model.stages:
        stage.register_forward_hook(lambda _, __, maps: shapes.append(list(maps.shape)))
    model(torch.randn(2, 1, 16, 16))
    assert shapes == [[2, side, side, width] for side, width in zip(sides, (8, 16), strict=True)]


def test_an_odd_map_is_padded():
    model = create_model("l2vit", num_classes=3, **TINY | {"img_size": 6})
    assert model.forward_features(torch.randn(2, 1, 6, 6)).shape == (2, 2, 2, 16)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attn_drop_rate": 0.1}, "probabilities, which linear attention never computes"),
        ({"embed_dim": 9, "num_heads": (3, 3, 3, 3)}, "embed_dim 9 is odd"),
        ({"num_heads": (3, 6)}, "is for 2 stages, but depths .* for 4"),
        (
            {"num_heads": (3, 6, 12, 25)},
            "stages.3: its width of 768 is not divisible by num_heads 25",
        ),
        ({"patch_size": 8}, "patch_size"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, message):
    with pytest.raises(InvalidConfig, match=message):
        create_model("l2vit", **settings)


def test_units_of_every_stage_can_be_exchanged_and_without_head_features_stay():
    model = create_model("l2vit", num_classes=3, **TINY)
    groups = L2VitDeclaration.symmetries(model).groups
    assert {name: group.size for name, group in groups.items() if group.inside is None} == {
        "patch_embed.hidden": 4,
        "stages.0.stream": 8,
        "stages.1.stream": 16,
        **{f"stages.{s}.blocks.{b}.attn.heads": 2 for s in (0, 1) for b in (0, 1)},
        **{f"stages.{s}.blocks.{b}.mlp": 32 * (s + 1) for s in (0, 1) for b in (0, 1)},
    }
    assert groups["stages.0.blocks.0.attn.qk"].maps == "invertible"
    assert groups["stages.0.blocks.1.attn.qk"].maps == "permutation"
    headless = L2VitDeclaration.symmetries(create_model("l2vit", num_classes=0, **TINY))
    assert groups.keys() - headless.groups.keys() == {"stages.1.stream"}
