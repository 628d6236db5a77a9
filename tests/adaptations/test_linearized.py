"""Models that are linear in what learns, against finite differences and closed forms."""

import copy
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.func import functional_call

from adaptations.tiny_models import SMALL, SWIN
from vitarium.architectures.create import create_model
from vitarium.architectures.features import features
from vitarium.core.registry import section

MODELS = {
    "vit": ("vit", SMALL),
    "average": ("vit", {**SMALL, "global_pool": "avg", "class_token": False}),
    "dinov2": ("dinov2", {**SMALL, "init_values": 0.5, "swiglu": True}),
    "mini_deit": ("mini_deit", SMALL),
    "experts": ("ewa_vit", SMALL),
    "swin": ("timm", {**SWIN, "model": "swin_tiny_patch4_window7_224"}),
    "beit": ("timm", {"model": "beit_base_patch16_224", "img_size": 32, "embed_dim": 16, "depth": 1, "num_heads": 2}),
}  # fmt: skip


def built(name="vit"):
    architecture, settings = MODELS[name]
    torch.manual_seed(0)
    plain = create_model(architecture, num_classes=3, **settings).eval().double()
    adapted = copy.deepcopy(plain)
    section("adaptation", "linearized")(adapted)
    return plain, adapted.eval()


def images_of(name="vit"):
    torch.manual_seed(1)
    size = MODELS[name][1]["img_size"]
    return torch.randn(2, 3, size, size, dtype=torch.float64)


def direction(model, seed=2, size=0.02):
    torch.manual_seed(seed)
    return {n: size * torch.randn_like(t) for n, t in model.tangent.named_parameters()}


def at(model, tangent, share=1.0):
    """The model with a share of this tangent."""
    moved = copy.deepcopy(model)
    moved.tangent.load_state_dict({n: share * t for n, t in tangent.items()})
    return moved


@pytest.mark.parametrize("name", MODELS)
def test_it_is_the_derivative_at_the_parents_weights(name):
    plain, adapted = built(name)
    images, tangent, step = images_of(name), direction(adapted), 1e-4
    assert tangent.keys() < plain.state_dict().keys()

    def moved(sign):
        weights = {n: w + sign * step * tangent[n] for n, w in start.items()}
        return functional_call(Tokens(plain), {f"model.{n}": w for n, w in weights.items()}, images)

    start = {n: w for n, w in plain.named_parameters() if n in tangent}
    with torch.no_grad():
        slope = (moved(1) - moved(-1)) / (2 * step)
        expected = plain.forward_features(images) + slope
        assert slope.abs().max() > 1e-3
        linear = at(adapted, tangent)
        assert torch.allclose(linear.forward_features(images), expected, atol=1e-6)
        assert torch.allclose(adapted.forward_features(images), plain.forward_features(images))
        assert torch.allclose(linear(images), plain.forward_head(expected), atol=1e-5)


class Tokens(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        return self.model.forward_features(images)


def test_features_are_affine_in_the_tangent():
    _, adapted = built()
    images, first, second = images_of(), direction(adapted), direction(adapted, seed=3)
    with torch.no_grad():
        start = adapted.forward_features(images)
        one, other = (at(adapted, t).forward_features(images) - start for t in (first, second))
        both = {n: 3.0 * first[n] - 0.5 * second[n] for n in first}
        change = at(adapted, both).forward_features(images) - start
    assert torch.allclose(change, 3.0 * one - 0.5 * other, atol=1e-10)


def test_the_gradient_of_features_does_not_depend_on_the_tangent():
    _, adapted = built()
    gradients = []
    for share in (0.0, 5.0):
        moved = at(adapted, direction(adapted), share)
        features(moved, images_of()).sum().backward()
        gradients.append({n: p.grad for n, p in moved.tangent.named_parameters()})
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], atol=1e-10), name
        assert gradient is not None


def test_where_the_model_is_linear_in_its_weights_it_is_that_model():
    plain, adapted = built()
    tangent = {n: torch.zeros_like(t) for n, t in direction(adapted).items()}
    for name in ("norm.weight", "norm.bias"):  # the last norm: features are linear in it
        tangent[name] = torch.randn_like(tangent[name])
        plain.get_parameter(name).data += tangent[name]
    linear = at(adapted, tangent)
    assert torch.allclose(linear(images_of()), plain(images_of()), atol=1e-10)


def test_frozen_weights_have_no_gradient_and_all_tangents_have_one():
    _, adapted = built("average")
    adapted(images_of()).square().sum().backward()
    learns = {n for n, p in adapted.named_parameters() if p.requires_grad}
    assert learns == {n for n, p in adapted.named_parameters() if p.grad is not None}
    assert all(n.startswith(("tangent.", "head.")) for n in learns)
    assert not any(n.startswith("tangent.fc_norm") for n in learns)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_runs_where_no_gradients_are_wanted(mode):
    _, adapted = built()
    moved = at(adapted, direction(adapted))
    expected = moved(images_of()).detach()
    with mode():
        assert torch.allclose(moved(images_of()), expected, atol=1e-12)


def test_copies_and_pickles_compute_the_same():
    _, adapted = built()
    moved = at(adapted, direction(adapted))
    again = pickle.loads(pickle.dumps(moved))
    assert torch.equal(again(images_of()), moved(images_of()))


def test_torchs_deprecated_functions_are_no_matter_of_the_user():
    code = """
import torch, warnings
from vitarium.architectures.create import create_model
from vitarium.core.registry import section
model = create_model("vit", img_size=8, patch_size=8, embed_dim=8, depth=1, num_heads=1)
section("adaptation", "linearized")(model)
warnings.simplefilter("error")
with torch.inference_mode():
    model.forward_features(torch.zeros(1, 3, 8, 8))
"""
    subprocess.run([sys.executable, "-c", code], check=True)
