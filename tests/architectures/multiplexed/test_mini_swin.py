"""Mini-Swin: exact sizes, and that it is a model like any other."""

import re

import pytest
import torch
from torch import nn

from reference.recorded import layer_vectors
from vitarium import Blueprint, create_model, plan
from vitarium.architectures.features import transformer_blocks
from vitarium.core.devices import meta_device
from vitarium.core.errors import NotApplicable
from vitarium.core.registry import choose, section
from vitarium.data.loader import stacked_batches
from vitarium.evaluation.attention import watch
from vitarium.evaluation.features import cosines
from vitarium.training import TrainOptions, stack_key
from vitarium.training.stacked_trainer import StackedTrainer
from vitarium.training.train_state import TrainState
from vitarium.training.trainer import Trainer
from vitarium.zoo import ModelFolder

TINY = "mini_swin_tiny_patch4_window7_224"
SMALL = "mini_swin_small_patch4_window7_224"
BASE = "mini_swin_base_patch4_window7_224"
BASE_384 = "mini_swin_base_patch4_window12_384"

ONLY_SHARING = {"mix_before": False, "mix_after": False, "convolution": 0}
SHARED_NORMS = {"separate_norms": False}


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


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
    ("preset", "total", "own_norms", "head_mixing", "parts"),
    [
        (TINY, 12_001_765, 11_767_645, 11_772_133,
         (4_896, 8_832, 8_832, 2_244, 2_244, 7_605, 2_354_400, 784_800,
                            6_274_080, 8_832, 220_800, 1_553_664, 1_536, 769_000)),
        (SMALL, 26_463_205, 25_985_725, 25_993_957,
         (4_896, 18_048, 18_048, 4_116, 4_116, 23_829, 5_902_560, 1_967_520,
                             15_726_624, 18_048, 451_200, 1_553_664, 1_536, 769_000)),
        (BASE, 46_444_852, 45_804_804, 45_819_188,
         (6_528, 24_064, 24_064, 7_192, 7_192, 31_772, 10_487_424, 3_495_808,
                            27_948_416, 24_064, 601_600, 2_759_680, 2_048, 1_025_000)),
        (BASE_384, 46_512_532, 45_872_484, 45_886_868,
         (6_528, 24_064, 24_064, 7_192, 7_192, 99_452, 10_487_424, 3_495_808,
                                27_948_416, 24_064, 601_600, 2_759_680, 2_048, 1_025_000)),
    ],
)  # fmt: skip
def test_presets_have_the_published_numbers_of_parameters(
    preset, total, own_norms, head_mixing, parts
):
    """In all, of each part, and before the convolution and the head mixing were added."""
    with meta_device():
        model = create_model(preset)
    assert count(model) == total
    found = {
        part: sum(p.numel() for name, p in model.named_parameters() if re.search(pattern, name))
        for part, pattern in PARTS.items()
    }
    assert found == dict(zip(PARTS, parts, strict=True))
    assert total - found["local norm"] - found["convolution"] == head_mixing
    assert head_mixing - found["before"] - found["after"] == own_norms


@pytest.mark.parametrize(
    ("preset", "settings", "parameters"),
    [
        (TINY, ONLY_SHARING | SHARED_NORMS, 11_755_741),
        (SMALL, ONLY_SHARING | SHARED_NORMS, 25_967_677),
        (BASE, ONLY_SHARING | SHARED_NORMS, 45_780_740),
        (BASE_384, ONLY_SHARING | SHARED_NORMS, 45_848_420),
        (TINY, ONLY_SHARING, 11_767_645),
        (TINY, {"convolution": 0}, 11_772_133),
        (TINY, ONLY_SHARING | {"share": 1}, 28_288_354),
        (TINY, {"position_bias": False}, 12_001_765 - 7_605),
        (TINY, {"mix_before": False}, 12_001_765 - 2_244),
        (TINY, {"mix_after": False}, 12_001_765 - 2_244),
        (TINY, {"convolution": 5}, 12_001_765 - 24 * 4_416),
    ],
)
def test_each_switch_saves_what_its_part_has(preset, settings, parameters):
    with meta_device():
        assert count(create_model(preset, **settings)) == parameters


def test_the_defaults_are_the_smallest_preset():
    assert choose("architecture", "mini_swin").factors(defaults=False) == {"name": "mini_swin"}
    assert section("architecture", "mini_swin").plugin.facts["presets"][TINY] == {}


def test_each_further_set_of_weights_costs_what_its_matrices_and_its_table_have():
    width, heads = 384, 12
    with meta_device():
        sizes = [count(create_model(TINY, share=["all", "all", s, "all"])) for s in (6, 2)]
    each = 12 * width**2 + 9 * width + 169 * heads
    assert sizes[1] - sizes[0] == 2 * each


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


def test_at_another_resolution_the_tables_alone_have_another_size():
    with meta_device():
        sizes = ({}, {"img_size": 384, "window_size": 12})
        small, large = (create_model(TINY, **size).state_dict() for size in sizes)
    assert set(small) == set(large)
    other = {name for name, tensor in small.items() if tensor.shape != large[name].shape}
    assert other == {name for name in small if name.endswith("bias_table")}


def test_timms_ways_of_using_a_model_work(windows):
    model = windows.made()
    images = windows.images(model)
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
    places = [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (1, 3)]
    model.prune_intermediate_layers([1])
    assert list(transformer_blocks(model)) == [f"layers.{s}.blocks.{b}" for s, b in places]
    assert model.no_weight_decay() == {n for n, _ in model.named_parameters() if "bias_table" in n}


@pytest.mark.parametrize(
    "rate", ["proj_drop_rate", "attn_drop_rate", "drop_path_rate", "drop_rate"]
)
def test_every_rate_drops_in_training_alone(windows, rate):
    model, without = windows.made(**{rate: 0.5}), windows.made()
    images = windows.images(model)
    assert torch.equal(model(images), without(images))
    model.train()
    assert not torch.equal(model(images), model(images))


def test_stochastic_depth_rises_over_the_blocks_of_all_stages(windows):
    model = windows.made(drop_path_rate=0.35)
    rates = [getattr(b.drop_path, "drop_prob", 0.0) for b in transformer_blocks(model).values()]
    assert rates == pytest.approx([0.05 * number for number in range(8)])


def test_in_half_precision_it_is_nearly_the_same(windows):
    model = windows.made().float()
    images = windows.images(model).float()
    expected = model(images)
    with torch.autocast("cpu", torch.bfloat16):
        found = model(images)
        found.sum().backward()
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()
    assert all(p.grad.isfinite().all() and p.dtype == torch.float32 for p in model.parameters())


SIZES = {"img_size": 8, "patch_size": 1, "in_chans": 1, "window_size": 4, "embed_dim": 8,
         "depths": (2, 2), "num_heads": (2, 2)}  # fmt: skip


def members(specs, path):
    return [TrainState(one, ModelFolder(path / one.id), None, TrainOptions()) for one in specs]


def losses(trainer, over, epochs):
    found = []
    for epoch in range(1, epochs + 1):
        trainer.training_mode()
        for number, batch in enumerate(stacked_batches([one.batches for one in over], epoch)):
            found.append(trainer.step(batch, epoch, number)["loss"].detach())
    return torch.stack(found)


def test_it_trains_in_a_stack_as_by_itself(tiny, tmp_path):
    stage = tiny["stages"]["pretrain"]
    stage["architecture"] = {"name": "mini_swin", **SIZES, "mixing_init": "identity"}
    tiny["stages"] = {"pretrain": {**stage, "epochs": 2}}
    specs = plan(Blueprint.read(tiny)).models
    assert len({stack_key(spec) for spec in specs} - {None}) == 1
    stacked = members(specs, tmp_path / "stacked")
    found = losses(StackedTrainer(stacked, TrainOptions()), stacked, 2)
    for k, member in enumerate(members(specs, tmp_path / "alone")):
        alone = losses(Trainer([member], TrainOptions()), [member], 2)[:, 0]
        assert torch.allclose(found[:, k], alone, rtol=1e-3)


def test_it_learns():
    torch.manual_seed(0)
    model = create_model("mini_swin", num_classes=4, **SIZES)
    images, labels = torch.randn(8, 1, 8, 8), torch.arange(8) % 4
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    values = []
    for _ in range(25):
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
    own = layer_vectors(small, [images], [choose("measure", "cka", batch_size=8)])[0]
    assert list(own) == ["layers.0", "layers.1"]
    assert torch.allclose(cosines(own, own).diagonal(), torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize(
    ("depths", "message"),
    [
        ((2, 2), "layers.0 of a MiniSwinTransformer has 2 attentions that can be looked at"),
        ((1, 1), "layers.0 attends inside windows"),
    ],
)
def test_it_has_no_attention_over_all_patches(depths, message):
    model = create_model("mini_swin", **{**SIZES, "depths": depths})
    with pytest.raises(NotApplicable, match=message):
        watch(model, torch.randn(2, 1, 8, 8), lambda name, maps: None)


@pytest.mark.parametrize("head", ["linear", {"name": "mlp", "hidden_dim": 6}, "none"])
def test_any_head_takes_the_place_of_its_classifier(small, head):
    section("head", head)(small, 3)
    outputs = small(torch.randn(2, 1, 8, 8))
    assert outputs.shape == (2, 16 if head == "none" else 3)
