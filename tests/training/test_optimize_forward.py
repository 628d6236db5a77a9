"""Shortcuts compute the same outputs and gradients."""

import gc
import weakref
from copy import deepcopy

import pytest
import torch

from vitarium import create_model
from vitarium.blueprint import Recipe
from vitarium.training import TrainOptions
from vitarium.training.optimize_forward import optimize_forward

SIZE = {"img_size": 16, "patch_size": 4, "embed_dim": 32, "depth": 3, "num_heads": 4}
IMAGES = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("settings", [{}, {"reg_tokens": 2}, {"qkv_bias": False}, {"depth": 1}])
def test_outputs_and_gradients_are_those_of_the_model_as_it_is(settings):
    settings = {**SIZE, **settings}
    torch.manual_seed(1)
    plain = create_model("vit", num_classes=7, **settings)
    for weight in plain.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    short = deepcopy(plain)
    optimize_forward(short, TrainOptions())
    assert type(short) is not type(plain)
    outputs = [model(IMAGES) for model in (plain, short)]
    assert torch.allclose(*outputs, atol=1e-5)
    for output in outputs:
        output.square().sum().backward()
    for (name, ours), theirs in zip(short.named_parameters(), plain.parameters(), strict=True):
        scale = theirs.grad.abs().max()
        assert torch.allclose(ours.grad, theirs.grad, atol=1e-5 * scale + 1e-6), name


@pytest.mark.parametrize("adaptation", ["lora", "orthogonal"])
def test_adapted_layers_compute_the_same(adaptation):
    recipe = Recipe.read(
        {
            "architecture": {"name": "vit", **SIZE},
            "data": "digits",
            "epochs": 1,
            "batch_size": 5,
            "adaptation": {"name": adaptation, "rank": 2, "matrices": ["q", "k", "v", "fc1"]},
        }
    )
    torch.manual_seed(1)
    plain = recipe.build_unadapted(7)
    recipe.adapt(plain)
    for name, weight in plain.named_parameters():
        if ".adaptation." in name:
            torch.nn.init.normal_(weight, std=0.2)
    short = deepcopy(plain)
    optimize_forward(short, TrainOptions())
    assert type(short) is not type(plain)
    for model in (plain, short):
        model(IMAGES).square().sum().backward()
    assert torch.allclose(plain(IMAGES), short(IMAGES), atol=1e-5)
    pairs = list(zip(plain.parameters(), short.parameters(), strict=True))
    assert any(ours.grad is not None for _, ours in pairs)
    for reference, ours in pairs:
        assert (reference.grad is None) == (ours.grad is None)
        if ours.grad is not None:
            assert torch.allclose(ours.grad, reference.grad, rtol=1e-3, atol=1e-5)


def test_whoever_asks_for_all_tokens_gets_them():
    torch.manual_seed(1)
    model = create_model("vit", num_classes=7, **SIZE)
    optimize_forward(model, TrainOptions())
    model(IMAGES)
    assert model.forward_features(IMAGES).shape == (5, 17, 32)


def test_a_copy_computes_with_its_own_weights():
    torch.manual_seed(1)
    model = create_model("vit", num_classes=7, **SIZE)
    optimize_forward(model, TrainOptions())
    copy = deepcopy(model)
    with torch.no_grad():
        for weight in copy.parameters():
            weight.zero_()
    assert not copy(IMAGES).any()
    assert model(IMAGES).any()


@pytest.mark.parametrize(
    "settings", [{"class_token": False, "global_pool": "avg"}, {"drop_path_rate": 0.2}]
)
def test_models_that_read_all_tokens_or_draw_at_random_are_left_alone(settings):
    model = create_model("vit", num_classes=7, **SIZE, **settings)
    before = type(model)
    optimize_forward(model, TrainOptions())
    assert type(model) is before


def test_a_model_goes_when_nobody_has_it_any_more():
    torch.manual_seed(1)
    model = create_model("vit", num_classes=7, **SIZE)
    optimize_forward(model, TrainOptions())
    model(IMAGES).sum().backward()
    known = weakref.ref(model)
    gc.disable()  # cycles would wait for it
    try:
        del model
        assert known() is None
    finally:
        gc.enable()


def test_plain_products_stand_in_for_fused_attention_in_bf16_on_cpus():
    torch.manual_seed(1)
    plain = create_model("vit", num_classes=7, **SIZE)
    short = deepcopy(plain)
    optimize_forward(short, TrainOptions(precision="bf16"))
    assert not any(block.attn.fused_attn for block in short.blocks)
    assert torch.allclose(plain(IMAGES), short(IMAGES), atol=1e-5)
