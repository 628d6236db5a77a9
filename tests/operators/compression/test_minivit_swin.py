"""Weight multiplexing of trained Swins: what they keep, share, and compute."""

import pytest
import torch
from timm.models.swin_transformer import SwinTransformer

from vitarium.core.errors import IncompatibleWeights
from vitarium.core.registry import choose, section
from vitarium.evaluation.inputs import Weights
from vitarium.operators.base import Ingredients
from vitarium.operators.compression.minivit import Minivit, compressed_architecture

TINY = {
    "name": "timm",
    "model": "swin_tiny_patch4_window7_224",
    "img_size": 16,
    "patch_size": 2,
    "in_chans": 1,
    "window_size": 4,
    "embed_dim": 12,
    "depths": [2, 4],
    "num_heads": [3, 3],
    "mlp_ratio": 2.0,
}
"""Windows of the first stage are shifted; the second stage is one window."""


def plain(equal=1, seed=0, **factors):
    """A random Swin, float64; in groups of so many blocks all but the norms are equal."""
    architecture = section("architecture", TINY | factors)
    torch.manual_seed(seed)
    model = architecture(5).double().eval().requires_grad_(False)
    for name, tensor in model.named_parameters():
        tensor.copy_(0.4 * torch.randn(tensor.shape) + ("norm" in name and "weight" in name))
    for stage in model.layers:
        for number, block in enumerate(stage.blocks):
            first = stage.blocks[number - number % equal]
            block.attn.load_state_dict(first.attn.state_dict())
            block.mlp.load_state_dict(first.mlp.state_dict())
    return architecture, model


def ingredients(model):
    return Ingredients([Weights("m", model.state_dict(), skeleton=lambda: model)])


def made(model, **settings):
    return dict(choose("operator", "minivit", **settings)(ingredients(model)))


def compressed(architecture, model, **settings):
    """The compressed model, running in float64."""
    built = compressed_architecture(Minivit(**settings), architecture)(model.num_classes).double()
    built.load_state_dict(made(model, **settings))
    return built.eval()


def outputs(model):
    torch.manual_seed(1)
    return model(torch.randn(3, 1, *model.patch_embed.img_size, dtype=torch.float64))


@pytest.mark.parametrize(
    ("init", "factors"),
    [
        ("first", {}),
        ("mean", {}),
        ("mean", {"qkv_bias": False, "drop_path_rate": 0.2}),
        ("first", {"img_size": 20}),  # maps that windows do not divide
    ],
)
def test_where_the_blocks_of_each_group_are_equal_the_compressed_model_computes_what_the_model_does(
    init, factors
):
    architecture, model = plain(equal=2, **factors)
    found = compressed(architecture, model, init=init)
    torch.testing.assert_close(outputs(found), outputs(model), rtol=0, atol=1e-10)


@pytest.mark.parametrize("init", ["first", "mean"])
def test_a_model_with_a_set_of_weights_for_each_block_is_the_model_itself(init):
    architecture, model = plain()
    found = compressed(architecture, model, share=1, init=init)
    torch.testing.assert_close(outputs(found), outputs(model), rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("switches", "has"),
    [
        ({"convolution": 0}, {"before", "after", "norm1"}),
        ({"mix_before": False, "convolution": 3}, {"after", "local", "norm1"}),
        ({"mix_after": False}, {"before", "local", "norm1"}),
        ({"separate_norms": False}, {"before", "after", "local"}),
    ],
)
def test_what_blocks_have_of_their_own_can_be_chosen_and_changes_nothing_at_the_start(
    switches, has
):
    architecture, model = plain(depths=[1, 1])
    found = compressed(architecture, model, share=1, **switches)
    own = " ".join(name for name in found.state_dict() if "blocks." in name)
    assert {part for part in ("before", "after", "local", "norm1") if part in own} == has
    torch.testing.assert_close(outputs(found), outputs(model), rtol=0, atol=1e-10)


def test_the_compressed_models_sizes_windows_and_rates_are_the_models():
    rates = {"drop_rate": 0.1, "proj_drop_rate": 0.2, "attn_drop_rate": 0.3, "drop_path_rate": 0.4}
    architecture, model = plain(**rates)
    factors = compressed_architecture(Minivit(), architecture).factors()
    sizes = {name: value for name, value in TINY.items() if name not in ("name", "model")}
    assert {name: factors[name] for name in sizes | rates} == sizes | rates
    assert factors["convolution"] == 7
    assert factors["norm_eps"] == model.norm.eps
    built = compressed_architecture(Minivit(), architecture)(5)
    for own, theirs in zip(model.layers, built.layers, strict=True):
        for block, other in zip(own.blocks, theirs.blocks, strict=True):
            assert other.attn.window == block.window_size
            assert other.attn.shift == block.shift_size
            rate = getattr(block.drop_path1, "drop_prob", 0)
            assert getattr(other.drop_path, "drop_prob", 0) == rate


def test_shared_weights_are_those_of_the_first_block_or_the_mean_of_the_group():
    _, model = plain()
    own = model.state_dict()
    share = ("all", (3, 1))
    first, mean = (made(model, share=share, init=init) for init in ("first", "mean"))
    for part in ("attn.qkv.weight", "attn.relative_position_bias_table", "mlp.fc2.bias"):
        blocks = [own[f"layers.1.blocks.{number}.{part}"] for number in range(4)]
        assert torch.equal(first[f"layers.1.shared.0.{part}"], blocks[0])
        expected = sum(blocks[:3]) / 3
        torch.testing.assert_close(mean[f"layers.1.shared.0.{part}"], expected)
        assert torch.equal(mean[f"layers.1.shared.1.{part}"], blocks[3])
        other = own[f"layers.0.blocks.0.{part}"]
        assert torch.equal(first[f"layers.0.shared.0.{part}"], other)
    kept = ("layers.1.blocks.2.norm1.weight", "layers.1.downsample.reduction.weight")
    for name in (*kept, "patch_embed.norm.bias", "norm.weight", "head.fc.weight", "head.fc.bias"):
        assert torch.equal(mean[name], own[name])
    assert not mean["layers.0.blocks.1.local.convolution.weight"].any()


@pytest.mark.parametrize(
    ("share", "message"),
    [
        (
            3,
            r"2 \+ 4 blocks has no such multiplexed version: layers.0: share 3 .* one of 1, 2, 'all'",
        ),
        ((2, 3), "layers.1: share 3 does not divide 4 blocks; use one of 1, 2, 4"),
        ((1, (2, 1)), "layers.1: .* let the sizes of the groups add up to 4"),
        ((2, 2, 2), "3 entries, but there are 2 stages"),
    ],
)
def test_a_pattern_that_does_not_divide_a_stage_is_refused(share, message):
    architecture = section("architecture", TINY)
    with pytest.raises(IncompatibleWeights, match=message):
        compressed_architecture(Minivit(share=share), architecture)


@pytest.mark.parametrize(
    ("factors", "has"),
    [
        ({"always_partition": True}, "always_partition"),
        ({"dynamic_img_size": True}, "dynamic_img_size"),
        ({"global_pool": "max"}, "global_pool 'max'"),
        ({"head_dim": 8}, "head_dim"),
        ({"mlp_ratio": [2.0, 4.0]}, "a mlp_ratio for each stage"),
        ({"window_size": [[2, 2], [4, 4]]}, r"window_size \[\(2, 2\), \(4, 4\)\]"),
        ({"window_size": [[4, 2], [4, 2]]}, r"window_size \[\(4, 2\)"),
        ({"img_size": [16, 8]}, r"img_size \(16, 8\)"),
        ({"patch_size": [2, 4]}, r"patch_size \(2, 4\)"),
        ({"img_size": 17}, "img_size 17 that patch_size 2 does not divide"),
        ({"depths": [2, 0]}, "a stage without blocks"),
    ],
)
def test_what_a_compressed_model_cannot_have_is_refused_by_name(factors, has):
    architecture = section("architecture", TINY | factors)
    with pytest.raises(IncompatibleWeights, match=has):
        compressed_architecture(Minivit(), architecture)


def test_models_with_norms_of_their_own_kind_are_refused():
    from vitarium.operators.compression._plain_models import swin_factors

    sizes = {"img_size": 8, "embed_dim": 4, "depths": (1,), "num_heads": (1,)}
    with pytest.raises(IncompatibleWeights, match="norms of another kind"):
        swin_factors(SwinTransformer(**sizes, norm_layer=torch.nn.RMSNorm))


def test_compressed_and_other_swins_are_refused():
    architecture = section("architecture", TINY)
    with pytest.raises(IncompatibleWeights, match="MiniSwinTransformer"):
        compressed_architecture(Minivit(), compressed_architecture(Minivit(), architecture))
    newer = {"model": "swinv2_tiny_window8_256"}
    other = section("architecture", {n: v for n, v in (TINY | newer).items() if n != "mlp_ratio"})
    with pytest.raises(IncompatibleWeights, match="version of a SwinTransformerV2"):
        compressed_architecture(Minivit(), other)


def test_encodings_of_positions_that_a_swin_has_not_are_refused():
    architecture = section("architecture", TINY)
    with pytest.raises(IncompatibleWeights, match="position bias; leave out relative_positions"):
        compressed_architecture(Minivit(relative_positions={"on": ["q"]}), architecture)
    assert compressed_architecture(
        Minivit(relative_positions=None), architecture
    ) == compressed_architecture(Minivit(), architecture)
