"""Symmetries: what is declared to change nothing changes nothing, and what is not declared does."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers.mlp import ConvMlp, GatedMlp, SwiGLU
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from reference import random_moves as drawn
from vitarium import create_model
from vitarium.architectures.symmetries._folding import folded
from vitarium.architectures.symmetries.base import composed, moved
from vitarium.architectures.symmetries.vit import vit_symmetries
from vitarium.core.devices import meta_device
from vitarium.core.errors import IncompatibleWeights
from vitarium.core.registry import section

SIZE = {"img_size": 16, "patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 3}
PATCH14 = SIZE | {"img_size": 28, "patch_size": 14}
TIMM = SIZE | {"model": "vit_tiny_patch16_224"}
MODELS = {
    "vit": ("vit", SIZE, None),
    "registers": ("vit", SIZE | {"reg_tokens": 2, "act_layer": "relu"}, None),
    "mean of tokens": ("vit", SIZE | {"class_token": False, "global_pool": "avg"}, None),
    "an MLP as head": ("vit", SIZE, {"name": "mlp", "hidden_dim": 5}),
    "no head": ("vit", SIZE, "none"),
    "several heads": (
        "vit",
        SIZE,
        {"name": "ensemble", "heads": ["linear", {"name": "mlp", "hidden_dim": 5}]},
    ),
    "no bias": ("vit", SIZE | {"qkv_bias": False}, None),
    "dinov2": ("dinov2", PATCH14, None),
    "distillation token": ("distilled_vit", SIZE, "token_heads"),
    "gated": ("dinov2", PATCH14 | {"swiglu": True, "patch_mean": False}, None),
    "timm": ("timm", TIMM, None),
    "normed queries": ("timm", TIMM | {"qk_norm": True}, None),
    "normed before": ("timm", TIMM | {"pre_norm": True}, None),
    "AIMv2": ("timm", PATCH14 | {"model": "aimv2_large_patch14_224"}, None),
    "SwiGLU": (VisionTransformer, SIZE | {"mlp_layer": SwiGLU, "init_values": 0.1}, None),
    "normed patches": (VisionTransformer, SIZE | {"embed_norm_layer": nn.LayerNorm}, None),
    "largest token": ("timm", TIMM | {"global_pool": "max"}, None),
}


def build(name, seed=0):
    architecture, sizes, head = MODELS[name]
    create = partial(create_model, architecture) if isinstance(architecture, str) else architecture
    model = create(num_classes=5, **sizes)
    if head is not None:
        section("head", head)(model, 5)
    return drawn.scrambled(model, seed)


def images(name, dtype):
    size = MODELS[name][1]["img_size"]
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, 3, size, size, generator=generator).to(dtype)


@torch.no_grad()
def change(model, weights, x):
    """Of the outputs with other weights, of the outputs."""
    before = model(x)
    kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.load_state_dict(weights)
    after = model(x)
    model.load_state_dict(kept)
    return ((after - before).abs().max() / before.abs().max()).item()


def generator(seed):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
@pytest.mark.parametrize("name", MODELS)
def test_permutations_keep_the_function(name, dtype, close):
    model = build(name).to(dtype)
    symmetries, weights = vit_symmetries(model), model.state_dict()
    permuted = moved(symmetries, weights, drawn.random_moves(symmetries, generator(0)))
    assert any(not torch.equal(permuted[n], t) for n, t in weights.items())
    assert all(permuted[n].dtype == t.dtype for n, t in weights.items())
    assert change(model, permuted, images(name, dtype)) < close


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
@pytest.mark.parametrize("name", sorted(set(MODELS) - {"no bias"}))
def test_mixing_keeps_the_function_of_a_folded_model(name, dtype, close):
    model = build(name).to(dtype)
    symmetries = vit_symmetries(model)
    whole = folded(symmetries, model.state_dict())
    mixed = moved(symmetries, whole, drawn.random_moves(symmetries, generator(0), mix=True))
    assert change(model, mixed, images(name, dtype)) < close


@pytest.mark.parametrize("group", ["stream", "blocks.1.attn.qk", "blocks.0.attn.vo"])
def test_mixing_is_no_permutation(group):
    """What the test above mixes, it really mixes."""
    symmetries = vit_symmetries(build("vit"))
    move = drawn.random_moves(symmetries, generator(0), mix=True)[group]
    assert move.is_floating_point()
    assert (move.abs() > 0.01).double().mean() > 0.9


def test_a_permutation_across_heads_is_no_symmetry():
    """A trap: all queries, keys and values in one order that ignores which head they are of."""
    model = build("vit").double()
    width, weights = SIZE["embed_dim"], dict(model.state_dict())
    order = torch.randperm(width, generator=generator(0))
    rows = torch.cat([order + part * width for part in range(3)])
    weights["blocks.0.attn.qkv.weight"] = weights["blocks.0.attn.qkv.weight"][rows]
    weights["blocks.0.attn.qkv.bias"] = weights["blocks.0.attn.qkv.bias"][rows]
    weights["blocks.0.attn.proj.weight"] = weights["blocks.0.attn.proj.weight"][:, order]
    assert change(model, weights, images("vit", torch.float64)) > 0.01


@pytest.mark.parametrize(
    ("architecture", "settings", "module"),
    [
        (VisionTransformer, {"mlp_layer": GatedMlp}, "blocks.0.mlp: a GatedMlp"),
        (VisionTransformer, {"mlp_layer": ConvMlp}, "blocks.0.mlp: a ConvMlp"),
        (VisionTransformer, {"mlp_layer": SwiGLU, "scale_mlp_norm": True}, "a SwiGLU"),
        ("vit_tiny_r_s16_p8_224", {}, "patch_embed: the symmetries of a HybridEmbed"),
        ("xcit_nano_12_p16_224", {}, "Xcit declares no symmetries"),
    ],
)
def test_what_is_not_declared_is_refused_by_the_name_of_the_module(architecture, settings, module):
    create = partial(create_model, architecture) if isinstance(architecture, str) else architecture
    with meta_device():
        model = create(num_classes=5, **settings)
    with pytest.raises(IncompatibleWeights, match=module):
        vit_symmetries(model)


@pytest.mark.parametrize("name", MODELS)
def test_every_number_of_a_model_is_of_one_piece(name):
    model = build(name)
    seen = {n: torch.zeros_like(t) for n, t in model.state_dict().items()}
    for piece in vit_symmetries(model).pieces:
        piece.of(seen).add_(1)  # a view, since every piece is
    assert all((t == 1).all() for t in seen.values())


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 2**31), st.sampled_from(["vit", "dinov2", "an MLP as head"]), st.booleans())
def test_moves_one_after_the_other_are_one_move(seed, name, mix):
    model = build(name).double()
    symmetries, draw = vit_symmetries(model), generator(seed)
    weights = folded(symmetries, model.state_dict())
    first = drawn.random_moves(symmetries, draw, mix=mix)
    then = drawn.random_moves(symmetries, draw)
    for one, other in ((first, then), (then, first), (first, {}), ({}, first)):
        twice = moved(symmetries, moved(symmetries, weights, one), other)
        once = moved(symmetries, weights, composed(symmetries, one, other))
        for tensor, expected in zip(once.values(), twice.values(), strict=True):
            torch.testing.assert_close(tensor, expected, rtol=1e-9, atol=1e-9)


def test_moving_changes_nothing_in_place():
    model = build("vit")
    symmetries = vit_symmetries(model)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    moved(symmetries, weights, drawn.random_moves(symmetries, generator(0)))
    assert all(torch.equal(weights[n], t) for n, t in model.state_dict().items())


def test_a_stream_that_a_norm_scales_has_to_be_folded_before_it_is_mixed():
    model = build("vit")
    symmetries = vit_symmetries(model)
    with pytest.raises(ValueError, match=r"norm1\.weight scales what is to be mixed"):
        moved(
            symmetries,
            model.state_dict(),
            drawn.random_moves(symmetries, generator(0), mix=True),
        )


def test_features_that_are_given_out_stay_in_their_order():
    assert "stream" not in vit_symmetries(build("no head")).groups


@pytest.mark.parametrize("name", ["normed before", "largest token"])
def test_a_stream_that_cannot_be_rotated_is_only_permuted(name):
    assert vit_symmetries(build(name)).groups["stream"].maps == "permutation"


def test_a_stream_with_another_norm_is_only_permuted():
    model = VisionTransformer(
        img_size=8, patch_size=4, embed_dim=8, depth=1, num_heads=2, num_classes=3,
        norm_layer="rmsnorm",
    )  # fmt: skip
    symmetries = vit_symmetries(drawn.scrambled(model, 0))
    assert symmetries.groups["stream"].maps == "permutation"
    permuted = moved(symmetries, model.state_dict(), drawn.random_moves(symmetries, generator(0)))
    assert change(model, permuted, torch.randn(2, 3, 8, 8, generator=generator(1))) < 1e-4


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: nn.Linear(2, 2), "Linear declares no symmetries"),
        (lambda: _timm("vit_base_patch16_clip_224", global_pool="map"), "attn_pool"),
        (lambda: _timm("vit_tiny_patch16_224", block_fn=None), "ParallelThingsBlock"),
        (lambda: _timm("deit_tiny_distilled_patch16_224"), "head_dist|dist_token"),
        (lambda: _with_head(nn.Bilinear(2, 2, 2)), "a Bilinear's symmetries are not declared"),
        (lambda: _with_head(nn.Sequential(nn.LayerNorm(8))), "LayerNorm is not declared"),
    ],
)
def test_what_is_not_declared_is_refused_by_name(model, message):
    with pytest.raises(IncompatibleWeights, match=message):
        vit_symmetries(model())


def _timm(name, **settings):
    import timm
    from timm.models.vision_transformer import ParallelThingsBlock

    if "block_fn" in settings:
        settings["block_fn"] = ParallelThingsBlock
    with meta_device():
        return timm.create_model(name, depth=1, **settings)


def _with_head(head):
    with meta_device():
        model = create_model(
            "vit", num_classes=3, img_size=8, patch_size=4, embed_dim=8, depth=1, num_heads=2
        )
    model.head = head
    return model
