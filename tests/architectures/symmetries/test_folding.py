"""Folding: norms' factors go into their neighbors and come back, and the function stays."""

import pytest
import torch

from reference import random_moves as drawn
from vitarium import create_model
from vitarium.architectures.symmetries._folding import factors, folded, unfolded
from vitarium.architectures.symmetries.vit import vit_symmetries
from vitarium.core.errors import IncompatibleWeights

SIZE = {"img_size": 28, "patch_size": 14, "embed_dim": 12, "depth": 2, "num_heads": 3}
MODELS = {
    "vit": ("vit", SIZE),
    "mean of tokens": ("vit", SIZE | {"class_token": False, "global_pool": "avg"}),
    "dinov2": ("dinov2", SIZE),
    "gated": ("dinov2", SIZE | {"swiglu": True, "patch_mean": False}),
    "normed queries": ("timm", SIZE | {"model": "vit_tiny_patch16_224", "qk_norm": True}),
}
IMAGES = torch.randn(3, 3, 28, 28, generator=torch.Generator().manual_seed(1))


def build(name, seed=0):
    architecture, sizes = MODELS[name]
    return drawn.scrambled(create_model(architecture, num_classes=5, **sizes), seed)


@torch.no_grad()
def outputs(model, weights):
    model.load_state_dict(weights)
    return model(IMAGES.to(model.head.weight.dtype))


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_folding_keeps_the_function(name, center, dtype, close):
    model = build(name).to(dtype)
    weights = {n: t.clone() for n, t in model.state_dict().items()}
    before = outputs(model, weights)
    symmetries = vit_symmetries(model)
    whole = folded(symmetries, weights, center=center)
    for norm in symmetries.norms:
        assert (whole[norm.weight] == 1).all()
        assert (whole[norm.bias] == 0).all()
    after = outputs(model, whole)
    assert (after - before).abs().max() < close * before.abs().max()


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
@pytest.mark.parametrize("name", MODELS)
def test_unfolding_keeps_the_function_with_the_norms_of_another_model(name, dtype, close):
    model, other = build(name).to(dtype), build(name, seed=1).to(dtype).state_dict()
    weights = {n: t.clone() for n, t in model.state_dict().items()}
    before = outputs(model, weights)
    symmetries = vit_symmetries(model)
    found = unfolded(symmetries, folded(symmetries, weights), like=other)
    assert factors(symmetries)
    assert all(torch.equal(found[n], other[n].double()) for n in factors(symmetries))
    after = outputs(model, found)
    assert (after - before).abs().max() < close * before.abs().max()


@pytest.mark.parametrize("name", MODELS)
def test_unfolding_undoes_folding(name):
    model = build(name).double()
    symmetries, weights = vit_symmetries(model), model.state_dict()
    found = unfolded(symmetries, folded(symmetries, weights, center=False), like=weights)
    for n, tensor in weights.items():
        torch.testing.assert_close(found[n], tensor, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_the_mean_of_models_that_share_norms_is_the_mean_of_the_folded_ones(name):
    model, other = build(name).double(), build(name, seed=1).double()
    symmetries, one = vit_symmetries(model), model.state_dict()
    two = unfolded(symmetries, folded(symmetries, other.state_dict()), like=one)
    wholes = [folded(symmetries, weights) for weights in (one, two)]
    mean = outputs(build(name).double(), {n: (t + two[n]) / 2 for n, t in one.items()})
    of_folded = outputs(
        build(name).double(), {n: (t + wholes[1][n]) / 2 for n, t in wholes[0].items()}
    )
    torch.testing.assert_close(mean, of_folded, rtol=1e-9, atol=1e-9)


def test_what_is_centered_has_mean_zero_over_the_stream():
    model = build("dinov2")
    symmetries = vit_symmetries(model)
    whole = folded(symmetries, model.state_dict())
    for piece, place in symmetries.having("stream"):
        if not piece.elementwise:
            assert piece.of(whole).mean(place).abs().max() < 1e-14


def test_folding_changes_nothing_in_place():
    model = build("dinov2").double()
    symmetries = vit_symmetries(model)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    unfolded(symmetries, folded(symmetries, weights), like=weights)
    assert all(torch.equal(weights[n], t) for n, t in model.state_dict().items())


def test_a_shift_that_no_bias_can_take_is_refused():
    model = drawn.scrambled(create_model("vit", num_classes=5, **SIZE, qkv_bias=False), 0)
    symmetries = vit_symmetries(model)
    weights = model.state_dict()
    with pytest.raises(IncompatibleWeights, match=r"before blocks\.0\.attn\.qkv\.weight .* bias"):
        folded(symmetries, weights)
    for block in ("blocks.0", "blocks.1"):
        weights[f"{block}.norm1.bias"].zero_()
    folded(symmetries, weights)  # no shift, and nothing to take it


def test_a_factor_of_zero_is_refused():
    model = build("dinov2")
    symmetries, weights = vit_symmetries(model), model.state_dict()
    whole = folded(symmetries, weights)
    weights["blocks.1.ls2.gamma"][3] = 0
    with pytest.raises(IncompatibleWeights, match=r"blocks\.1\.ls2\.gamma .* entries of zero"):
        unfolded(symmetries, whole, like=weights)
