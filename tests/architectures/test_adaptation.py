"""A parent's weights for other images: exactly as timm adapts its pretrained ones."""

import importlib

import pytest
import timm
import torch
from timm.layers import resample_abs_pos_embed
from timm.models._manipulate import adapt_input_conv

from vitarium import create_model
from vitarium.architectures.adaptation import start_weights
from vitarium.core.errors import IncompatibleWeights

SIZES = {"embed_dim": 24, "depth": 1, "num_heads": 2}
VIT = {"name": "vit", "img_size": 16, "patch_size": 4, **SIZES}
FAMILIES = {
    "vit_tiny_patch16_224": ({"img_size": 64, **SIZES}, {"img_size": 96, **SIZES}),
    "vit_small_patch14_reg4_dinov2": ({"img_size": 56, **SIZES}, {"img_size": 84, **SIZES}),
    "beit_base_patch16_224": ({"img_size": 32, **SIZES}, {"img_size": 64, **SIZES}),
    "eva02_tiny_patch14_224": ({"img_size": 28, **SIZES}, {"img_size": 56, **SIZES}),
    "vit_relpos_small_patch16_224": (
        {"img_size": 32, "rel_pos_type": "bias", **SIZES},
        {"img_size": 48, "rel_pos_type": "bias", **SIZES},
    ),
    "swin_tiny_patch4_window7_224": (
        {"img_size": 56, "embed_dim": 8, "depths": (1, 1), "num_heads": (1, 2)},
        {"img_size": 32, "embed_dim": 8, "depths": (1, 1), "num_heads": (1, 2), "window_size": 4},
    ),
}  # fmt: skip


def build(name="vit", num_classes=5, seed=0, **settings):
    torch.manual_seed(seed)
    return create_model(name, num_classes=num_classes, **settings)


def as_timm(parent, child):
    """What timm makes of a pretrained model's weights for another, first convolution and all."""
    family = importlib.import_module(type(child).__module__)
    weights = {k: v for k, v in parent.state_dict().items() if not k.startswith("head.")}
    return family.checkpoint_filter_fn(weights, child)


@pytest.mark.parametrize("name", FAMILIES)
def test_weights_for_another_image_size_are_those_of_timm(name):
    before, after = FAMILIES[name]
    parent, child = build(name, **before), build(name, seed=1, **after)
    expected = as_timm(parent, child)
    weights, changes = start_weights(child, parent.state_dict(), head=False, parent_model=parent)
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[tensor], expected[tensor]) for tensor in weights)
    assert changes
    child.load_state_dict(weights, strict=False)
    side = after["img_size"]
    assert torch.isfinite(child(torch.rand(1, 3, side, side))).all()


def test_what_changed_is_said_in_patches():
    parent = build(**VIT)
    child = build(**{**VIT, "img_size": 32})
    assert start_weights(child, parent.state_dict(), head=False).changes == (
        "positions resampled 4×4 → 8×8",
    )


def test_another_patch_size_resamples_the_patch_embedding_as_timm_does():
    parent = build(**VIT)
    child = build(**{**VIT, "img_size": 32, "patch_size": 8})
    weights, changes = start_weights(child, parent.state_dict(), head=False)
    expected = as_timm(parent, child)
    assert torch.equal(weights["patch_embed.proj.weight"], expected["patch_embed.proj.weight"])
    assert torch.equal(weights["pos_embed"], parent.pos_embed)
    assert changes == ("patch embedding resampled 4×4 → 8×8",)


@pytest.mark.parametrize(("before", "after"), [(3, 1), (3, 4), (3, 7), (1, 3), (4, 3), (2, 2)])
def test_another_number_of_channels_is_summed_or_repeated_as_timm_does(before, after):
    parent = build(**VIT, in_chans=before)
    child = build(**VIT, in_chans=after)
    weights, changes = start_weights(child, parent.state_dict(), head=False)
    expected = adapt_input_conv(after, parent.patch_embed.proj.weight, base_chans=before)
    torch.testing.assert_close(weights["patch_embed.proj.weight"], expected, rtol=0, atol=0)
    assert len(changes) == (before != after)


def test_gray_images_give_what_they_gave_in_three_channels():
    parent, child = build(**VIT), build(**VIT, in_chans=1)
    child.load_state_dict(start_weights(child, parent.state_dict(), head=True).weights)
    gray = torch.rand(2, 1, 16, 16)
    torch.testing.assert_close(
        child(gray), parent(gray.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("after", [(16, 16), (32, 8), (32, 16)])
def test_rectangles_of_patches_are_told_by_the_parent(after):
    """2 by 8 patches are as many as 4 by 4, and positions of other places all the same."""
    name, sizes = "vit_tiny_patch16_224", {"patch_size": 4, **SIZES}
    parent = build(name, img_size=(8, 32), **sizes)
    child = build(name, img_size=after, **sizes)
    grid = [side // 4 for side in after]
    expected = resample_abs_pos_embed(parent.pos_embed, grid, [2, 8], num_prefix_tokens=1)
    weights, changes = start_weights(child, parent.state_dict(), head=False, parent_model=parent)
    assert torch.equal(weights["pos_embed"], expected)
    assert changes == (f"positions resampled 2×8 → {grid[0]}×{grid[1]}",)


def test_weights_that_fit_are_left_as_they_are():
    parent = build(**VIT)
    weights, changes = start_weights(build(**VIT, seed=1), parent.state_dict(), head=True)
    assert changes == ()
    assert all(torch.equal(weights[name], t) for name, t in parent.state_dict().items())


def test_what_is_kept_in_bfloat16_is_resampled_in_float32():
    parent, child = build(**VIT), build(**{**VIT, "img_size": 32})
    kept = {name: tensor.bfloat16() for name, tensor in parent.state_dict().items()}
    weights, _ = start_weights(child, kept, head=False)
    exact = resample_abs_pos_embed(kept["pos_embed"].float(), [8, 8], num_prefix_tokens=1)
    assert torch.equal(weights["pos_embed"], exact)


@pytest.mark.parametrize(
    ("name", "settings", "change"),
    [
        ("mini_deit", {"depth": 2, "share": 2, "embed_dim": 24, "num_heads": 2}, {"img_size": 32}),
        ("mini_swin", {"embed_dim": 8, "depths": (2,), "num_heads": (2,), "window_size": 4, "patch_size": 4}, {"img_size": 32, "window_size": 8}),
        ("ewa_vit", {"depth": 2, "embed_dim": 24, "num_heads": 2}, {"img_size": 32, "in_chans": 1}),
        ("dinov2", {"depth": 1, "embed_dim": 24, "num_heads": 2, "patch_size": 4}, {"img_size": 32}),
    ],
)  # fmt: skip
def test_every_architecture_of_ours_takes_other_images(name, settings, change):
    settings = {"img_size": 16, "patch_size": 4, **settings}
    parent, child = build(name, **settings), build(name, seed=1, **(settings | change))
    weights, changes = start_weights(child, parent.state_dict(), head=False, parent_model=parent)
    assert changes
    child.load_state_dict(weights, strict=False)
    images = torch.rand(1, change.get("in_chans", 3), change["img_size"], change["img_size"])
    assert torch.isfinite(child.eval()(images)).all()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"embed_dim": 16}, "blocks.0.attn.proj.bias is (24,), not (16,)"),
        ({"depth": 2}, "blocks.1.attn.proj.bias is missing"),
        ({"class_token": False, "global_pool": "avg"}, "cls_token has no place"),
        ({"mlp_ratio": 2.0}, "blocks.0.mlp.fc1.bias is (96,), not (48,)"),
        ({"reg_tokens": 2, "img_size": 32}, "reg_token is missing"),
    ],
)
def test_what_cannot_be_adapted_is_named_by_tensor(change, named):
    parent, child = build(**VIT), build(**{**VIT, **change})
    with pytest.raises(IncompatibleWeights) as refused:
        start_weights(child, parent.state_dict(), head=False, parent_model=parent)
    assert named in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_head_is_compared_where_it_is_kept():
    parent, child = build(**VIT), build(**VIT, num_classes=7)
    assert "head.weight" not in start_weights(child, parent.state_dict(), head=False).weights
    with pytest.raises(IncompatibleWeights, match=r"head.bias is \(5,\), not \(7,\)"):
        start_weights(child, parent.state_dict(), head=True)


def test_on_the_meta_device_the_same_is_said():
    parent = timm.create_model("vit_tiny_patch16_224", img_size=64, **SIZES)
    hollow = {n: torch.zeros(()).expand(t.shape) for n, t in parent.state_dict().items()}
    with torch.device("meta"):
        child = timm.create_model("vit_tiny_patch16_224", img_size=96, in_chans=1, **SIZES)
    assert start_weights(child, hollow, head=False).changes == (
        "patch embedding's channels summed 3 → 1",
        "positions resampled 4×4 → 6×6",
    )


@pytest.mark.parametrize("shape", [(24, 0, 4, 4), (24, 3, 0, 0)])
def test_of_no_numbers_nothing_is_made(shape):
    model = build(**VIT)
    parent = {**model.state_dict(), "patch_embed.proj.weight": torch.zeros(shape)}
    with pytest.raises(IncompatibleWeights, match=r"patch_embed\.proj\.weight is \(24, "):
        start_weights(model, parent, head=True)
