"""Shared weights inside of windows: what Mini-Swin equals, and that they exist once."""

import copy

import pytest
import torch
from torch import nn

from vitarium import create_model
from vitarium.architectures.features import transformer_blocks
from vitarium.core.errors import InvalidInput


def made_plain(model):
    """Set what is each block's own to what does nothing."""
    with torch.no_grad():
        for block in transformer_blocks(model).values():
            for mixing in filter(None, (block.attn.before, block.attn.after)):
                mixing.weight.copy_(torch.eye(len(mixing.weight)))
                mixing.bias.zero_()
            if not isinstance(block.local, nn.Identity):
                for parameter in block.local.convolution.parameters():
                    parameter.zero_()
    return model


@torch.no_grad()
def difference(one, other, images):
    found, expected = one(images), other(images)
    assert expected.std() > 0.01
    return (found - expected).abs().max() / expected.abs().max()


@pytest.mark.parametrize("share", [1, 2, "all", ("all", (1, 3), 1)])
def test_with_identity_mixing_and_no_convolution_it_is_timms_swin_with_equal_blocks(windows, share):
    model = made_plain(windows.made(share=share))
    assert difference(model, windows.plain(model), windows.images(model)) < 1e-12


@pytest.mark.parametrize(
    "settings",
    [
        {"img_size": 20},
        {"img_size": 26, "window_size": 5},
        {"window_size": 3},
        {"window_size": 1},
        {"window_size": 64},
        {"depths": (3,), "num_heads": (2,), "share": "all"},
        {"separate_norms": False},
        {"separate_norms": False, "norm_eps": 0.01},
        {"qkv_bias": False, "mlp_ratio": 2.6, "in_chans": 1},
        {"position_bias": False},
        {"mix_before": False, "convolution": 0},
        {"mix_after": False, "convolution": 0},
    ],
    ids=lambda settings: " ".join(f"{name}={value}" for name, value in settings.items()),
)
def test_it_is_timms_swin_with_any_sizes_and_switches(windows, settings):
    model = made_plain(windows.made(**settings))
    assert difference(model, windows.plain(model), windows.images(model)) < 1e-12


def test_the_identity_is_a_start_from_which_all_are_plain(windows):
    torch.manual_seed(0)
    settings = {**windows.SMALL, "mixing_init": "identity"}
    model = create_model("mini_swin", num_classes=5, **settings).double().eval()
    assert difference(model, windows.plain(model), windows.images(model)) < 1e-12
    other = create_model("mini_swin", num_classes=5, **windows.SMALL).double().eval()
    assert difference(other, windows.plain(other), windows.images(other)) > 1e-3


@pytest.mark.parametrize("local_norm", ["branch", "stream"])
@pytest.mark.parametrize("block", [0, 1])
def test_a_block_is_what_the_formulas_say(windows, block, local_norm):
    model = windows.made(local_norm=local_norm, img_size=24)
    maps = torch.randn(2, 12, 12, 8, dtype=torch.float64)
    shift = 2 if block == 1 else 0
    expected = torch.stack(
        [windows.block_by_formula(model, 0, block, one, 4, shift) for one in maps]
    )
    with torch.no_grad():
        found = model.layers[0].blocks[block](maps)
    assert torch.allclose(found, expected, rtol=0, atol=1e-12 * expected.abs().max().item())


def test_every_second_block_of_a_stage_is_shifted_whatever_it_shares(windows):
    model = windows.made(depths=(3, 4, 2), share=("all", (1, 3), "all"))
    own, timms = (transformer_blocks(one) for one in (model, windows.plain(model)))
    assert {name: block.attn.shift for name, block in own.items()} == {
        name: block.shift_size for name, block in timms.items()
    }
    shifts = [block.attn.shift for block in own.values()]
    # the last stage's maps are one window
    assert shifts == [(0, 0), (2, 2), (0, 0), (0, 0), (2, 2), (0, 0), (2, 2), (0, 0), (0, 0)]


def test_the_mask_is_used_in_shifted_passes_alone(windows):
    model = windows.made()
    for name, block in transformer_blocks(model).items():
        assert (block.attn.mask is not None) == any(block.attn.shift), name
    block, maps = model.layers[0].blocks[1], torch.randn(2, 16, 16, 8, dtype=torch.float64)
    before = block(maps)
    block.attn.mask = torch.zeros_like(block.attn.mask)
    assert (block(maps) - before).abs().max() > 0.01


def test_shifting_lets_patches_of_neighboring_windows_meet(windows):
    model = windows.made(convolution=0)
    maps = torch.randn(1, 16, 16, 8, dtype=torch.float64)
    other = maps.clone()
    other[0, 5, 5, 0] += 1

    def reached(block):
        changed = (block(maps) - block(other)).abs().amax(-1)[0] > 0
        return changed.nonzero().amin(0).tolist(), changed.nonzero().amax(0).tolist()

    blocks = model.layers[0].blocks
    assert reached(blocks[0]) == ([4, 4], [7, 7])
    assert reached(blocks[1]) == ([2, 2], [5, 5])


@pytest.mark.parametrize("separate_norms", [True, False])
@pytest.mark.parametrize("share", [2, ("all", (1, 3), 1)])
def test_a_shared_gradient_is_the_sum_over_the_untied_copies(windows, share, separate_norms):
    model = windows.made(share=share, separate_norms=separate_norms)
    copies, images = windows.untied(model), windows.images(model)
    target = torch.randn(2, 5, dtype=torch.float64)
    for one in (model, copies):
        (one(images) * target).sum().backward()
    untied = {name: parameter.grad for name, parameter in copies.named_parameters()}
    for stage, sizes in enumerate(model.config.group_sizes):
        for group, size in enumerate(sizes):
            first = sum(sizes[:group])
            for name, parameter in model.layers[stage].shared[group].named_parameters():
                places = [f"layers.{stage}.shared.{first + k}.{name}" for k in range(size)]
                parts = [untied.pop(place) for place in places]
                scale = max(part.abs().max() for part in parts)
                assert scale > 0, places
                assert torch.allclose(parameter.grad, sum(parts), rtol=0, atol=1e-12 * scale)
    assert not [name for name in untied if ".shared." in name]
    for name, expected in untied.items():
        if ".before.bias" not in name:  # it is zero
            found, scale = model.get_parameter(name).grad, expected.abs().max()
            assert torch.allclose(found, expected, rtol=0, atol=1e-12 * scale), name


def test_the_bias_of_mixing_before_the_softmax_has_no_effect(windows):
    model = windows.made()
    other, images = copy.deepcopy(model), windows.images(model)
    blocks = transformer_blocks(other).values()
    with torch.no_grad():
        for block in blocks:
            block.attn.before.bias += 3 * torch.randn_like(block.attn.before.bias)
    assert difference(other, model, images) < 1e-12
    other(images).sum().backward()
    for block in blocks:
        after = block.attn.after.bias.grad.abs().max()
        assert block.attn.before.bias.grad.abs().max() < 1e-12 * after


def test_as_released_a_block_without_convolution_normalises_its_stream(windows):
    model = made_plain(windows.made(local_norm="stream"))
    block, maps = model.layers[0].blocks[1], torch.randn(2, 16, 16, 8, dtype=torch.float64)
    with torch.no_grad():
        stream = block.local.norm(maps + block.attn(block.norm1(maps)))
        assert torch.allclose(block(maps), stream + block.mlp(block.norm2(stream)), atol=1e-12)
    assert difference(model, windows.plain(model), windows.images(model)) > 1e-3


def test_each_shared_tensor_is_one_parameter_and_one_tensor_of_the_state(windows):
    model = windows.made()
    state = model.state_dict()
    assert set(state) == {name for name, _ in model.named_parameters()}
    assert len({tensor.data_ptr() for tensor in state.values()}) == len(state)
    shared = {name for name in state if name.startswith("layers.1.shared.1.")}
    assert shared == {
        "layers.1.shared.1." + name
        for name in (
            "attn.qkv.weight",
            "attn.qkv.bias",
            "attn.proj.weight",
            "attn.proj.bias",
            "attn.relative_position_bias_table",
            "mlp.fc1.weight",
            "mlp.fc1.bias",
            "mlp.fc2.weight",
            "mlp.fc2.bias",
        )
    }
    own = {name for name in state if name.startswith("layers.1.blocks.3.")}
    parts = ("norm1", "norm2", "attn.before", "attn.after", "local.norm", "local.convolution")
    assert own == {f"layers.1.blocks.3.{p}.{kind}" for p in parts for kind in ("weight", "bias")}


def test_its_state_loads_into_another_one_and_copies_share_inside_themselves(windows):
    model, other = windows.made(), windows.made(seed=1)
    images = windows.images(model)
    assert difference(other, model, images) > 0.1
    other.load_state_dict(model.state_dict(), strict=True)
    assert difference(other, model, images) == 0
    twin, before = copy.deepcopy(model), model(images)
    assert twin.layers[0].blocks[1].attn.qkv.lender is twin.layers[0].shared[0].attn.qkv
    with torch.no_grad():
        twin.layers[0].shared[0].attn.relative_position_bias_table.zero_()
    assert torch.equal(model(images), before)
    assert not torch.equal(twin(images), before)


@pytest.mark.parametrize("share", [2, "all"])
def test_it_takes_another_input_size_as_timms_model_does(windows, share):
    model = made_plain(windows.made(share=share))
    plain = windows.plain(model)
    for size in ({"img_size": (48, 40), "window_size": 5}, {"img_size": (64, 64)}):
        for one in (model, plain):
            one.set_input_size(**size)
        images = torch.randn(1, 3, *size["img_size"], dtype=torch.float64)
        assert difference(model, plain, images) < 1e-12
    with pytest.raises(InvalidInput, match="always_partition"):
        model.set_input_size(img_size=32, always_partition=True)


def test_a_table_of_windows_that_are_not_square_is_not_resampled(windows):
    model = windows.made()
    model.set_input_size(img_size=(16, 32))  # windows of 2 by 4
    assert model(torch.randn(1, 3, 16, 32, dtype=torch.float64)).shape == (1, 5)
    with pytest.raises(InvalidInput, match="windows of 2 by 4; only that of square ones"):
        model.set_input_size(img_size=(32, 32))
