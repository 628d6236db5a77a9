"""Mini-Swin: exact sizes, what it equals, and that it is a model like any other."""

import copy
import importlib.util
import json
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from vitarium import Blueprint, create_model, plan
from vitarium.architectures.features import transformer_blocks
from vitarium.config import InvalidConfig
from vitarium.data.batches import together
from vitarium.errors import CannotMeasure, InvalidInput
from vitarium.measures.attention_maps import watch
from vitarium.measures.representations import cosines, vectors
from vitarium.registry import choose, section
from vitarium.store import ModelFolder
from vitarium.training import TrainOptions, stack_key
from vitarium.training.alone import Alone
from vitarium.training.member import Member
from vitarium.training.stack import Stack

TINY = "mini_swin_tiny_patch4_window7_224"
SMALL = "mini_swin_small_patch4_window7_224"
BASE = "mini_swin_base_patch4_window7_224"
BASE_384 = "mini_swin_base_patch4_window12_384"

ONLY_SHARING = {"mix_before": False, "mix_after": False, "convolution": 0}
SHARED_NORMS = {"separate_norms": False}


@pytest.fixture(scope="module")
def reference():
    file = Path(__file__).parents[1] / "reference" / "multiplexed_windows.py"
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


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


PARTS = {
    "patch embedding": r"patch_embed\.",
    "norm1": r"blocks\.\d+\.norm1\.",
    "norm2": r"blocks\.\d+\.norm2\.",
    "before": r"blocks\.\d+\.attn\.before\.",
    "after": r"blocks\.\d+\.attn\.after\.",
    "tables": r"shared\.\d+\.attn\.relative_position_bias_table$",
    "qkv": r"shared\.\d+\.attn\.qkv\.",
    "proj": r"shared\.\d+\.attn\.proj\.",
    "mlp": r"shared\.\d+\.mlp\.",
    "local norm": r"blocks\.\d+\.local\.norm\.",
    "convolution": r"blocks\.\d+\.local\.convolution\.",
    "merging": r"downsample\.",
    "last norm": r"^norm\.",
    "head": r"^head\.",
}


@pytest.mark.parametrize(
    ("preset", "total", "parts"),
    [
        (TINY, 12_001_765, (4_896, 8_832, 8_832, 2_244, 2_244, 7_605, 2_354_400, 784_800,
                            6_274_080, 8_832, 220_800, 1_553_664, 1_536, 769_000)),
        (SMALL, 26_463_205, (4_896, 18_048, 18_048, 4_116, 4_116, 23_829, 5_902_560, 1_967_520,
                             15_726_624, 18_048, 451_200, 1_553_664, 1_536, 769_000)),
        (BASE, 46_444_852, (6_528, 24_064, 24_064, 7_192, 7_192, 31_772, 10_487_424, 3_495_808,
                            27_948_416, 24_064, 601_600, 2_759_680, 2_048, 1_025_000)),
        (BASE_384, 46_512_532, (6_528, 24_064, 24_064, 7_192, 7_192, 99_452, 10_487_424, 3_495_808,
                                27_948_416, 24_064, 601_600, 2_759_680, 2_048, 1_025_000)),
    ],
)  # fmt: skip
def test_presets_have_the_published_numbers_of_parameters(preset, total, parts):
    with torch.device("meta"):
        model = create_model(preset)
    assert count(model) == total
    found = {
        part: sum(p.numel() for name, p in model.named_parameters() if re.search(pattern, name))
        for part, pattern in PARTS.items()
    }
    assert found == dict(zip(PARTS, parts, strict=True))


@pytest.mark.parametrize(
    ("preset", "settings", "parameters"),
    [
        (TINY, ONLY_SHARING | SHARED_NORMS, 11_755_741),
        (SMALL, ONLY_SHARING | SHARED_NORMS, 25_967_677),
        (BASE, ONLY_SHARING | SHARED_NORMS, 45_780_740),
        (BASE_384, ONLY_SHARING | SHARED_NORMS, 45_848_420),
        (TINY, ONLY_SHARING, 11_767_645),
        (SMALL, ONLY_SHARING, 25_985_725),
        (BASE, ONLY_SHARING, 45_804_804),
        (BASE_384, ONLY_SHARING, 45_872_484),
        (TINY, {"convolution": 0}, 11_772_133),
        (SMALL, {"convolution": 0}, 25_993_957),
        (BASE, {"convolution": 0}, 45_819_188),
        (BASE_384, {"convolution": 0}, 45_886_868),
        (TINY, ONLY_SHARING | {"share": 1}, 28_288_354),
        (TINY, {"position_bias": False}, 12_001_765 - 7_605),
        (TINY, {"mix_before": False}, 12_001_765 - 2_244),
        (TINY, {"mix_after": False}, 12_001_765 - 2_244),
        (TINY, {"convolution": 5}, 12_001_765 - 24 * 4_416),
    ],
)
def test_each_switch_saves_what_its_part_has(preset, settings, parameters):
    with torch.device("meta"):
        assert count(create_model(preset, **settings)) == parameters


def test_the_defaults_are_the_smallest_preset():
    assert choose("architecture", "mini_swin").factors(defaults=False) == {"name": "mini_swin"}
    assert section("architecture", "mini_swin").plugin.facts["presets"][TINY] == {}


def test_each_further_set_of_weights_costs_what_its_matrices_and_its_table_have():
    width, heads = 384, 12
    with torch.device("meta"):
        sizes = [count(create_model(TINY, share=["all", "all", s, "all"])) for s in (6, 2)]
    each = 12 * width**2 + 9 * width + 169 * heads
    assert sizes[1] - sizes[0] == 2 * each


@pytest.mark.parametrize("share", [1, 2, "all", ("all", (1, 3), 1)])
def test_with_identity_mixing_and_no_convolution_it_is_timms_swin_with_equal_blocks(
    reference, share
):
    model = made_plain(reference.made(share=share))
    assert difference(model, reference.plain(model), reference.images(model)) < 1e-12


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
def test_it_is_timms_swin_with_any_sizes_and_switches(reference, settings):
    model = made_plain(reference.made(**settings))
    assert difference(model, reference.plain(model), reference.images(model)) < 1e-12


def test_the_identity_is_a_start_from_which_all_are_plain(reference):
    torch.manual_seed(0)
    settings = {**reference.SMALL, "mixing_init": "identity"}
    model = create_model("mini_swin", num_classes=5, **settings).double().eval()
    assert difference(model, reference.plain(model), reference.images(model)) < 1e-12
    other = create_model("mini_swin", num_classes=5, **reference.SMALL).double().eval()
    assert difference(other, reference.plain(other), reference.images(other)) > 1e-3


def test_it_starts_as_the_authors_have_it():
    torch.manual_seed(0)
    sizes = {**SIZES, "depths": (4, 4), "embed_dim": 64}
    model = create_model("mini_swin", **sizes).requires_grad_(False)
    for name, parameter in model.named_parameters():
        if name.endswith("norm.weight") or "norm1.weight" in name or "norm2.weight" in name:
            assert torch.equal(parameter, torch.ones_like(parameter)), name
        elif "convolution" in name:  # uniform up to 1 / sqrt(fan-in)
            assert 0.9 / 7 < parameter.abs().max() <= 1 / 7, name
        elif name.endswith("bias") and "patch_embed.proj" not in name:
            assert not parameter.any(), name
        elif parameter.numel() > 1000 and "patch_embed" not in name:
            assert parameter.std() == pytest.approx(0.02, rel=0.1), name
    attentions = [block.attn for block in transformer_blocks(model).values()]
    mixing = [one for attn in attentions for one in (attn.before, attn.after)]
    assert torch.cat([one.weight.flatten() for one in mixing]).std() == pytest.approx(0.02, rel=0.3)


@pytest.mark.parametrize("local_norm", ["branch", "stream"])
@pytest.mark.parametrize("block", [0, 1])
def test_a_block_is_what_the_formulas_say(reference, block, local_norm):
    model = reference.made(local_norm=local_norm, img_size=24)
    maps = torch.randn(2, 12, 12, 8, dtype=torch.float64)
    shift = 2 if block == 1 else 0
    expected = torch.stack(
        [reference.block_by_formula(model, 0, block, one, 4, shift) for one in maps]
    )
    with torch.no_grad():
        found = model.layers[0].blocks[block](maps)
    assert torch.allclose(found, expected, rtol=0, atol=1e-12 * expected.abs().max().item())


def test_every_second_block_of_a_stage_is_shifted_whatever_it_shares(reference):
    model = reference.made(depths=(3, 4, 2), share=("all", (1, 3), "all"))
    own, timms = (transformer_blocks(one) for one in (model, reference.plain(model)))
    assert {name: block.attn.shift for name, block in own.items()} == {
        name: block.shift_size for name, block in timms.items()
    }
    shifts = [block.attn.shift for block in own.values()]
    # the last stage's maps are one window
    assert shifts == [(0, 0), (2, 2), (0, 0), (0, 0), (2, 2), (0, 0), (2, 2), (0, 0), (0, 0)]


def test_the_mask_is_used_in_shifted_passes_alone(reference):
    model = reference.made()
    for name, block in transformer_blocks(model).items():
        assert (block.attn.mask is not None) == any(block.attn.shift), name
    block, maps = model.layers[0].blocks[1], torch.randn(2, 16, 16, 8, dtype=torch.float64)
    before = block(maps)
    block.attn.mask = torch.zeros_like(block.attn.mask)
    assert (block(maps) - before).abs().max() > 0.01


def test_shifting_lets_patches_of_neighbouring_windows_meet(reference):
    model = reference.made(convolution=0)
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
def test_a_shared_gradient_is_the_sum_over_the_untied_copies(reference, share, separate_norms):
    model = reference.made(share=share, separate_norms=separate_norms)
    copies, images = reference.untied(model), reference.images(model)
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


def test_the_bias_of_mixing_before_the_softmax_has_no_effect(reference):
    model = reference.made()
    other, images = copy.deepcopy(model), reference.images(model)
    blocks = transformer_blocks(other).values()
    with torch.no_grad():
        for block in blocks:
            block.attn.before.bias += 3 * torch.randn_like(block.attn.before.bias)
    assert difference(other, model, images) < 1e-12
    other(images).sum().backward()
    for block in blocks:
        after = block.attn.after.bias.grad.abs().max()
        assert block.attn.before.bias.grad.abs().max() < 1e-12 * after


def test_as_released_a_block_without_convolution_normalises_its_stream(reference):
    model = made_plain(reference.made(local_norm="stream"))
    block, maps = model.layers[0].blocks[1], torch.randn(2, 16, 16, 8, dtype=torch.float64)
    with torch.no_grad():
        stream = block.local.norm(maps + block.attn(block.norm1(maps)))
        assert torch.allclose(block(maps), stream + block.mlp(block.norm2(stream)), atol=1e-12)
    assert difference(model, reference.plain(model), reference.images(model)) > 1e-3


def test_each_shared_tensor_is_one_parameter_and_one_tensor_of_the_state(reference):
    model = reference.made()
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


def test_its_state_loads_into_another_one_and_copies_share_inside_themselves(reference):
    model, other = reference.made(), reference.made(seed=1)
    images = reference.images(model)
    assert difference(other, model, images) > 0.1
    other.load_state_dict(model.state_dict(), strict=True)
    assert difference(other, model, images) == 0
    twin, before = copy.deepcopy(model), model(images)
    assert twin.layers[0].blocks[1].attn.qkv.lender is twin.layers[0].shared[0].attn.qkv
    with torch.no_grad():
        twin.layers[0].shared[0].attn.relative_position_bias_table.zero_()
    assert torch.equal(model(images), before)
    assert not torch.equal(twin(images), before)


def test_at_another_resolution_the_tables_alone_have_another_size():
    with torch.device("meta"):
        small, large = (create_model(name).state_dict() for name in (BASE, BASE_384))
    assert set(small) == set(large)
    other = {name for name, tensor in small.items() if tensor.shape != large[name].shape}
    assert other == {name for name in small if name.endswith("bias_table")}


@pytest.mark.parametrize("share", [2, "all"])
def test_it_takes_another_input_size_as_timms_model_does(reference, share):
    model = made_plain(reference.made(share=share))
    plain = reference.plain(model)
    for size in ({"img_size": (48, 40), "window_size": 5}, {"img_size": (64, 64)}):
        for one in (model, plain):
            one.set_input_size(**size)
        images = torch.randn(1, 3, *size["img_size"], dtype=torch.float64)
        assert difference(model, plain, images) < 1e-12
    with pytest.raises(InvalidInput, match="always_partition"):
        model.set_input_size(img_size=32, always_partition=True)


def test_timms_ways_of_using_a_model_work(reference):
    model = reference.made()
    images = reference.images(model)
    expected = model(images)
    model.set_grad_checkpointing()
    model.train()
    found = model(images)
    assert torch.allclose(found, expected)
    found.sum().backward()
    last, stages = model.eval().forward_intermediates(images)
    assert [list(stage.shape) for stage in stages] == [[2, 8, 16, 16], [2, 16, 8, 8], [2, 32, 4, 4]]
    assert torch.equal(model.forward_head(last), model.forward_head(model.forward_features(images)))
    model.reset_classifier(7)
    assert model(images).shape == (2, 7)
    matched = model.group_matcher()["blocks"]
    assert matched[1] == (r"^layers\.1\.shared\.0\.", (1, 0))
    assert matched[2] == (r"^layers\.1\.shared\.1\.", (1, 2))
    assert model.no_weight_decay() == {n for n, _ in model.named_parameters() if "bias_table" in n}


@pytest.mark.parametrize(
    "rate", ["proj_drop_rate", "attn_drop_rate", "drop_path_rate", "drop_rate"]
)
def test_every_rate_drops_in_training_alone(reference, rate):
    model, without = reference.made(**{rate: 0.5}), reference.made()
    images = reference.images(model)
    assert torch.equal(model(images), without(images))
    model.train()
    assert not torch.equal(model(images), model(images))


def test_stochastic_depth_rises_over_the_blocks_of_all_stages(reference):
    model = reference.made(drop_path_rate=0.35)
    rates = [getattr(b.drop_path, "drop_prob", 0.0) for b in transformer_blocks(model).values()]
    assert rates == pytest.approx([0.05 * number for number in range(8)])


def test_in_half_precision_it_is_nearly_the_same(reference):
    model = reference.made().float()
    images = reference.images(model).float()
    expected = model(images)
    with torch.autocast("cpu", torch.bfloat16):
        found = model(images)
        found.sum().backward()
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()
    assert all(p.grad.isfinite().all() and p.dtype == torch.float32 for p in model.parameters())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"share": 4}, "layers.0: share 4 does not divide 2 blocks; use one of 1, 2, 'all', or"),
        ({"share": [2, 2, 4, 2]}, "layers.2: share 4 does not divide 6 blocks; use one of 1, 2, 3"),
        ({"share": [2, 2, 6]}, "share has 3 entries, but there are 4 stages; give one for each"),
        ({"share": [2, 2, [3, 2], 2]}, r"layers.2: share \[3, 2\] is for 5 blocks, but there are 6"),
        ({"share": []}, "share has 0 entries, but there are 4 stages"),
        ({"share": 0}, "share: 0 is not a number of blocks from 1, 'all', or a list with one"),
        ({"share": "some"}, "share: 'some' is not a number of blocks from 1"),
        ({"share": [2, 2, "some", 2]}, r"share: \[2, 2, 'some', 2\] is not a number of blocks"),
        ({"share": [2, 2, [3, "all"], 2]}, "or a list of such numbers"),
        ({"share": [2, 2, [3, True], 2]}, "or a list of such numbers"),
        ({"share": None}, "share: None is not a number of blocks"),
        ({"num_heads": [3, 6, 12]}, r"num_heads \[3, 6, 12\] is for 3 stages, but depths"),
        ({"num_heads": [3, 6, 12, 25]}, "layers.3: its width of 768 is not divisible by num_heads"),
        ({"img_size": 223}, "img_size 223 is not divisible by patch_size 4"),
        ({"convolution": 4}, "convolution: a kernel of 4 has no middle; use 3 or 5"),
        ({"depths": []}, "depths: "),
        ({"window_size": 0}, "window_size: 0 is not greater than 0"),
        ({"local_norm": "both"}, "local_norm: 'both' is not 'branch' or 'stream'"),
    ],
)  # fmt: skip
def test_settings_that_build_no_model_are_refused_once_with_what_to_change(settings, said):
    with pytest.raises(InvalidConfig, match=said) as caught:
        choose("architecture", "mini_swin", **settings)
    assert len(caught.value.problems) == 1


def test_its_factors_are_json_and_make_it_again():
    chosen = choose("architecture", "mini_swin", share=[2, "all", [2, 4], [1, 1]], convolution=0)
    again = section("architecture", json.loads(json.dumps(chosen.factors())))
    assert again == chosen
    assert hash(again) == hash(chosen)
    assert chosen.config.group_sizes == ((2,), (2,), (2, 4), (1, 1))


SIZES = {"img_size": 8, "patch_size": 1, "in_chans": 1, "window_size": 4, "embed_dim": 8,
         "depths": (2, 2), "num_heads": (2, 2)}  # fmt: skip


def members(specs, path):
    return [Member(one, ModelFolder(path / one.id), None, TrainOptions()) for one in specs]


def losses(trainer, over, epochs):
    found = []
    for epoch in range(1, epochs + 1):
        trainer.training_mode()
        for number, batch in enumerate(together([one.batches for one in over], epoch)):
            found.append(trainer.step(batch, epoch, number)["loss"].detach())
    return torch.stack(found)


def test_it_trains_in_a_stack_as_by_itself(tiny, tmp_path):
    stage = tiny["stages"]["pretrain"]
    stage["architecture"] = {"name": "mini_swin", **SIZES, "mixing_init": "identity"}
    tiny["stages"] = {"pretrain": {**stage, "epochs": 2}}
    specs = plan(Blueprint.read(tiny)).models
    assert len({stack_key(spec) for spec in specs} - {None}) == 1
    stacked = members(specs, tmp_path / "stacked")
    found = losses(Stack(stacked, TrainOptions()), stacked, 2)
    for k, member in enumerate(members(specs, tmp_path / "alone")):
        alone = losses(Alone([member], TrainOptions()), [member], 2)[:, 0]
        assert torch.allclose(found[:, k], alone, rtol=1e-3)


@pytest.mark.parametrize("mixing_init", ["trunc_normal", "identity"])
def test_it_learns(mixing_init):
    torch.manual_seed(0)
    model = create_model("mini_swin", num_classes=4, mixing_init=mixing_init, **SIZES)
    images, labels = torch.randn(8, 1, 8, 8), torch.arange(8) % 4
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    values = []
    for _ in range(40):
        loss = nn.functional.cross_entropy(model(images), labels)
        values.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert values[-1] < 0.3 * values[0]


@pytest.fixture
def small():
    torch.manual_seed(0)
    return create_model("mini_swin", num_classes=10, **SIZES).eval()


def test_its_stages_can_be_compared(small):
    images = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    own = vectors(small, [images], [choose("measure", "cka", batch_size=8)])[0]
    assert list(own) == ["layers.0", "layers.1"]
    assert torch.allclose(cosines(own, own).diagonal(), torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize(
    ("depths", "said"),
    [
        ((2, 2), "layers.0 of a MiniSwinTransformer has 2 attentions that can be looked at"),
        ((1, 1), "layers.0 attends inside windows"),
    ],
)
def test_it_has_no_attention_over_all_patches(depths, said):
    model = create_model("mini_swin", **{**SIZES, "depths": depths})
    with pytest.raises(CannotMeasure, match=said):
        watch(model, torch.randn(2, 1, 8, 8), lambda name, maps: None)


@pytest.mark.parametrize("head", ["linear", {"name": "mlp", "hidden_dim": 6}, "none"])
def test_any_head_takes_the_place_of_its_classifier(small, head):
    section("head", head)(small, 3)
    outputs = small(torch.randn(2, 1, 8, 8))
    assert outputs.shape == (2, 16 if head == "none" else 3)
