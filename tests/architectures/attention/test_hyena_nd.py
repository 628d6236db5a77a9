"""Hyena N-D: true convolutions over the grid, what a cell sees, directions, hybrids, counts."""

import pytest
import torch
from timm.layers.attention import Attention

from reference import random_moves
from vitarium import create_model
from vitarium.architectures.attention._hyena import HyenaOperator, ImplicitFilter, long_convolution
from vitarium.architectures.attention.hyena_nd import HyenaDeclaration
from vitarium.architectures.symmetries._folding import folded
from vitarium.architectures.symmetries.base import moved
from vitarium.core.config import InvalidConfig
from vitarium.core.devices import meta_device
from vitarium.core.errors import InvalidInput

SIZES = {"img_size": 8, "patch_size": 2, "in_chans": 1, "embed_dim": 6, "num_heads": 2, "depth": 2}
PLAIN = {
    "order": 2,
    "filters": "product",
    "filter_width": 5,
    "window": "fixed",
    "directions": "causal",
    "flipped": False,
}


def drawn(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def operator(side=4, dim=3, seed=0, **settings):
    torch.manual_seed(seed)
    module = HyenaOperator(dim, side, **PLAIN | settings).double()
    for parameter in (module.in_proj.weight, module.proj.weight):
        torch.nn.init.normal_(parameter)
    return module


def direct_sum(maps, filters):
    outputs = torch.zeros_like(maps)
    rows, columns = maps.shape[-2:]
    for i in range(rows):
        for j in range(columns):
            for a in range(i + 1):
                for b in range(j + 1):
                    outputs[..., i, j] += filters[:, i - a, j - b] * maps[..., a, b]
    return outputs


def test_the_long_convolution_is_the_direct_sum():
    maps, filters = drawn(2, 3, 5, 4, seed=1), drawn(3, 5, 4, seed=2)
    expected = direct_sum(maps, filters)
    torch.testing.assert_close(long_convolution(maps, filters), expected, rtol=0, atol=1e-12)


def test_zeros_around_the_grid_change_nothing_inside():
    maps, filters = drawn(2, 3, 4, 4, seed=1), drawn(3, 7, 7, seed=2)
    wider = torch.nn.functional.pad(maps, (0, 3, 0, 3))
    outputs = long_convolution(wider, filters)[..., :4, :4]
    expected = long_convolution(maps, filters[:, :4, :4])
    torch.testing.assert_close(outputs, expected, rtol=0, atol=1e-12)


def test_half_precision_is_convolved_in_float32():
    maps, filters = drawn(1, 2, 4, 4).bfloat16(), drawn(2, 4, 4).bfloat16()
    outputs = long_convolution(maps, filters)
    assert outputs.dtype == torch.float32
    torch.testing.assert_close(outputs, long_convolution(maps.float(), filters.float()))


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("filters", ["product", "2d", "direct"])
def test_the_operator_is_a_recurrence_of_gates_and_convolutions(filters, order):
    module, tokens = operator(filters=filters, order=order), drawn(2, 16, 3)
    maps = module.in_proj(tokens).transpose(1, 2).reshape(2, -1, 4, 4)
    *gates, values = module.short_filter(maps).split(3, dim=1)
    for number, gate in enumerate(reversed(gates[1:])):
        gated, skip = gate * values, module.bias[number].view(3, 1, 1)
        values = direct_sum(gated, module.long_filters()[number]) + skip * gated
    expected = module.proj((values * gates[0]).flatten(2).transpose(1, 2))
    torch.testing.assert_close(module(tokens), expected, rtol=0, atol=1e-12)


def test_a_filter_of_zeros_leaves_the_gates():
    module, tokens = operator(filters="direct"), drawn(2, 16, 3)
    torch.nn.init.zeros_(module.filters)
    torch.nn.init.ones_(module.bias)
    maps = module.in_proj(tokens).transpose(1, 2).reshape(2, -1, 4, 4)
    product = module.short_filter(maps).unflatten(1, (3, 3)).prod(1)
    torch.testing.assert_close(module(tokens), module.proj(product.flatten(2).transpose(1, 2)))


def implicit(kind, window="fixed", channels=4):
    torch.manual_seed(2)
    return ImplicitFilter(channels, 5, 6, kind, window).double()


def test_product_filters_have_rank_one_and_those_of_both_axes_more():
    ranks = {kind: torch.linalg.matrix_rank(implicit(kind)()) for kind in ("product", "2d")}
    assert ranks["product"].tolist() == [1] * 4
    assert (ranks["2d"] > 1).all()


@pytest.mark.parametrize("kind", ["product", "2d"])
def test_the_window_falls_to_a_hundredth_as_fast_as_its_channel(kind):
    with_window, without = implicit(kind)(), implicit(kind, "none")()
    ratio = with_window / without
    torch.testing.assert_close(ratio, ratio.transpose(1, 2))
    ends = torch.tensor([1 / 1.5, 1 / 0.3])  # of the first and the last channel
    expected = (0.01**ends).double()
    torch.testing.assert_close(ratio[[0, -1], 0, -1], expected)
    torch.testing.assert_close(ratio[[0, -1], -1, -1], expected**2)


def test_positions_are_time_and_one_slow_wave():
    positions = implicit("2d").positions
    phase = 2e-4 * torch.pi * torch.arange(5) / 5
    expected = torch.stack([torch.arange(5) / 4, phase.cos(), -phase.sin()], 1)
    torch.testing.assert_close(positions.float(), expected, rtol=0, atol=1e-7)


def receptive_field(module, cell, side=5):
    """Of the grid, bool [side, side]: cells by which the output of a cell changes."""
    tokens = drawn(1, side * side, 3).requires_grad_()
    outputs = module(tokens)[0, cell[0] * side + cell[1]]
    (gradient,) = torch.autograd.grad(outputs.sum(), tokens)
    return gradient[0].abs().sum(-1).view(side, side) > 1e-9 * gradient.abs().max()


def test_a_cell_sees_those_above_and_to_the_left_and_a_pixel_further():
    """The short filter has 3 by 3 cells, and so leads one further."""
    field = receptive_field(operator(side=5, window="none"), (2, 1))
    expected = torch.zeros(5, 5, dtype=torch.bool)
    expected[:4, :3] = True
    assert torch.equal(field, expected)


def test_every_other_operator_looks_the_other_way_and_two_see_all():
    flipped, causal = (
        operator(side=5, window="none", directions="alternating", flipped=flipped)
        for flipped in (True, False)
    )
    expected = torch.zeros(5, 5, dtype=torch.bool)
    expected[1:, 0:] = True
    assert torch.equal(receptive_field(flipped, (2, 1)), expected)
    assert not receptive_field(causal, (2, 1)).all()
    assert receptive_field(torch.nn.Sequential(flipped, causal), (2, 1)).all()


@pytest.mark.parametrize("directions", ["four", "four_channels", "four_branches"])
def test_four_directions_see_all(directions):
    assert receptive_field(operator(side=5, window="none", directions=directions), (2, 1)).all()


def test_four_directions_are_a_weighted_sum_of_the_causal_operator_on_flips():
    module, tokens = operator(directions="four"), drawn(2, 16, 3)
    maps = module.in_proj(tokens).transpose(1, 2).reshape(2, -1, 4, 4)
    first, second, values = module.short_filter(maps).split(3, dim=1)
    total = module.mix.bias
    for weight, flip in zip(module.mix.weight[0], [[], [2, 3], [3], [2]], strict=True):
        gated = (second * values).flip(flip)
        convolved = direct_sum(gated, module.long_filters()[0]).flip(flip)
        total = total + weight * first * (convolved + module.bias.view(3, 1, 1) * second * values)
    expected = module.proj(total.flatten(2).transpose(1, 2))
    torch.testing.assert_close(module(tokens), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("width", "counts"),
    [
        (192, (196_010, 175_338, 175_343, 303_210, 229_632)),
        (384, (669_674, 636_714, 636_719, 1_113_642, 754_176)),
        (768, (2_501_738, 2_444_202, 2_444_207, 4_282_794, 2_688_000)),
    ],
)
def test_operators_have_the_published_numbers_of_parameters(width, counts):
    variants = [
        {},
        {"filters": "2d"},
        {"filters": "2d", "directions": "four"},
        {"filters": "2d", "directions": "four_branches"},
        {"filters": "direct"},
    ]
    # a direct filter of the authors' has a second one of each channel that is never used
    unused = [0, 0, 0, 0, width * (14 * 14 + 1)]
    for variant, count, less in zip(variants, counts, unused, strict=True):
        with meta_device():
            module = HyenaOperator(width, 14, **PLAIN | {"filter_width": 64} | variant)
        assert sum(p.numel() for p in module.parameters()) == count - less, variant


@pytest.mark.parametrize(("filters", "count"), [("2d", 6_042_400), ("product", 6_290_464)])
def test_presets_have_the_published_numbers_of_parameters(filters, count):
    with meta_device():
        model = create_model("hyena_nd_tiny_patch16_224", filters=filters)
    assert sum(p.numel() for p in model.parameters()) == count


@pytest.mark.parametrize(
    ("attention", "depth", "blocks"),
    [
        ("none", 4, []),
        ("first", 4, [0, 1]),
        ("first", 5, [0, 1]),
        ("last", 4, [2, 3]),
        ("last", 5, [3, 4]),
        ("alternating", 5, [1, 3]),
    ],
)
def test_attention_stands_in_the_chosen_blocks(attention, depth, blocks):
    sizes = SIZES | {"depth": depth, "attention_blocks": attention, "directions": "alternating"}
    model = create_model("hyena_nd", **sizes)
    mixers = [block.attn for block in model.blocks]
    assert [n for n, mixer in enumerate(mixers) if type(mixer) is Attention] == blocks
    operators = [mixer for mixer in mixers if type(mixer) is HyenaOperator]
    by_turns = [((-2, -1),), ((),)] * depth  # whatever stands between
    assert [mixer.flips for mixer in operators] == by_turns[: len(operators)]


@pytest.mark.parametrize("mix", [False, True])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"attention_blocks": "alternating", "directions": "four_channels", "order": 3},
        {"window": "learned", "filters": "2d", "directions": "four"},
        {"filters": "direct", "directions": "four_branches"},
        {"window": "none", "directions": "four_channels"},
    ],
)
def test_declared_symmetries_change_nothing(settings, mix):
    model = create_model("hyena_nd", num_classes=3, filter_width=4, **SIZES | settings)
    model, images = random_moves.scrambled(model, 0).double(), drawn(3, 1, 8, 8)
    symmetries = HyenaDeclaration.symmetries(model)
    assert ("blocks.0.attn.channels" in symmetries.groups) == (
        bool(settings) and ("window" in settings or "filters" in settings)
    )
    expected, weights = model(images), model.state_dict()
    moves = random_moves.random_moves(symmetries, torch.Generator().manual_seed(1), mix=mix)
    weights = folded(symmetries, weights) if mix else weights
    model.load_state_dict(moved(symmetries, weights, moves))
    torch.testing.assert_close(model(images), expected, rtol=1e-8, atol=1e-8)


def test_another_number_of_tokens_is_refused():
    with pytest.raises(InvalidInput, match=r"needs all 4 x 4 patches .* there are 9 tokens"):
        operator()(torch.zeros(1, 9, 3).double())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"class_token": True}, "class_token True: the operator works on the grid"),
        ({"reg_tokens": 2}, "reg_tokens 2: the operator works on the grid"),
        ({"attn_drop_rate": 0.1}, "probabilities, which Hyena's operator never computes"),
        ({"filters": "direct", "window": "none"}, "window 'none' is of computed filters"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, message):
    with pytest.raises(InvalidConfig, match=message):
        create_model("hyena_nd", **settings)
