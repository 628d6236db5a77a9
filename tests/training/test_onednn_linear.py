"""Linear layers by oneDNN are torch's, with all derivatives."""

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.autograd.forward_ad import dual_level, make_dual, unpack_dual
from torch.func import jvp, vmap
from torch.nn import functional as F

from vitarium import create_model
from vitarium.adaptations._factors import AdaptedLinear
from vitarium.core import devices
from vitarium.training import TrainOptions
from vitarium.training._onednn_linear import OneDNNLinear, linear, use_onednn
from vitarium.training.optimize_forward import optimize_forward
from vitarium.training.options import software

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN"
)


def tensors(*shapes, requires_grad=False):
    random = torch.Generator().manual_seed(0)
    return [torch.randn(*s, generator=random).requires_grad_(requires_grad) for s in shapes]


def close(ours, reference):
    return torch.allclose(ours.double(), reference.double(), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("leading", [(5,), (2, 3), (2, 1, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_outputs_and_gradients_are_those_of_float64(leading, bias):
    inputs, weight, offset = tensors((*leading, 32), (48, 32), (48,), requires_grad=True)
    arguments = [inputs, weight, offset] if bias else [inputs, weight]
    exact = [tensor.detach().double().requires_grad_() for tensor in arguments]
    ours, reference = linear(*arguments), F.linear(*exact)
    assert close(ours, reference)
    gradients = torch.autograd.grad(ours.square().sum(), arguments)
    references = torch.autograd.grad(reference.square().sum(), exact)
    for gradient, correct in zip(gradients, references, strict=True):
        assert close(gradient, correct)


def test_of_no_rows_there_are_none_and_gradients_are_zero():
    inputs, weight, bias = tensors((0, 3, 32), (48, 32), (48,), requires_grad=True)
    outputs = linear(inputs, weight, bias)
    assert outputs.shape == (0, 3, 48)
    outputs.sum().backward()
    assert torch.equal(weight.grad, torch.zeros_like(weight))
    with torch.no_grad():
        assert linear(inputs, weight, bias).shape == (0, 3, 48)


def test_only_the_gradients_that_are_needed_are_computed():
    inputs, weight, bias = tensors((4, 32), (48, 32), (48,))
    weight.requires_grad_()
    linear(inputs, weight, bias).sum().backward()
    assert weight.grad is not None
    assert inputs.grad is None
    assert bias.grad is None


def test_a_frozen_layer_keeps_none_of_its_inputs():
    def saved(requires_grad):
        inputs, weight = tensors((4, 32), (48, 32))
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: sizes.append(tuple(tensor.shape)) or tensor, lambda tensor: tensor
        ):
            linear(inputs.requires_grad_(), weight.requires_grad_(requires_grad))
        return sizes

    assert saved(requires_grad=True) == [(4, 32), (48, 32)]
    assert saved(requires_grad=False) == [(48, 32)]


def test_a_gradient_has_a_gradient():
    def second(product):
        inputs, weight, bias = tensors((4, 32), (48, 32), (48,), requires_grad=True)
        (first,) = torch.autograd.grad(
            product(inputs, weight, bias).square().sum(), inputs, create_graph=True
        )
        return torch.autograd.grad(first.square().sum(), (inputs, weight))

    for ours, reference in zip(second(linear), second(F.linear), strict=True):
        assert torch.allclose(ours, reference, rtol=1e-4)


def test_torch_func_and_dual_numbers_go_through():
    inputs, weight, bias, *tangents = tensors((4, 32), (48, 32), (48,), (4, 32), (48, 32), (48,))
    values = (inputs, weight, bias)
    _, reference = jvp(F.linear, values, tuple(tangents))
    assert close(jvp(linear, values, tuple(tangents))[1], reference)
    with dual_level():
        duals = [make_dual(value, tangent) for value, tangent in zip(values, tangents, strict=True)]
        assert close(unpack_dual(linear(*duals)).tangent, reference)
    stacked = torch.stack((weight, -weight))
    assert close(vmap(linear, (None, 0))(inputs, stacked), inputs @ stacked.transpose(1, 2))


def test_layers_keep_their_names_weights_and_changes_in_factors():
    class Doubled(nn.Module):
        def forward(self, inputs):
            return 2 * F.pad(inputs, (0, 16))

    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(64, 80), nn.GELU(), nn.Linear(80, 96), nn.Linear(96, 10))
    plain[2].__class__ = AdaptedLinear
    plain[2].adaptation = Doubled()
    model = deepcopy(plain)
    use_onednn(model)
    assert isinstance(model[0], OneDNNLinear)
    assert isinstance(model[2], OneDNNLinear)
    assert type(model[3]) is nn.Linear  # too small to gain
    (inputs,) = tensors((7, 3, 64))
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert close(model(inputs), plain(inputs))
    hidden = model[:2](inputs)
    change = model[2](hidden) - F.linear(hidden, model[2].weight, model[2].bias)
    assert torch.allclose(change, plain[2].adaptation(hidden), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "uses"),
    [
        ({}, True),
        ({"precision": "bf16"}, False),
        ({"compiled": True}, False),
        ({"stacked": True}, False),
        ({"device": "cuda"}, False),
    ],
)
def test_training_uses_and_records_them_where_they_are_faster(monkeypatch, options, uses):
    monkeypatch.setattr("vitarium.training.options.onednn_is_faster", lambda: True)
    train_options = TrainOptions(**options)
    model = create_model(
        "vit", num_classes=7, img_size=16, patch_size=4, embed_dim=64, depth=2, num_heads=4
    )
    plain = deepcopy(model)
    optimize_forward(model, train_options)
    assert any(isinstance(m, OneDNNLinear) for m in model.modules()) == uses
    assert train_options.linear_kernel == ("onednn" if uses else "torch")
    if train_options.device == "cpu":
        assert software(train_options)["linear_kernel"] == train_options.linear_kernel
        (images,) = tensors((3, 3, 16, 16))
        assert torch.allclose(model(images), plain(images), atol=1e-4)


@pytest.mark.parametrize(
    ("capability", "vendor", "faster"),
    [
        ("AVX512", "AuthenticAMD", True),
        ("AVX512", "GenuineIntel", False),
        ("AVX512", None, False),
        ("AVX2", "AuthenticAMD", False),
    ],
)
def test_it_is_a_fact_of_the_processor(monkeypatch, capability, vendor, faster):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(devices, "_cpu_vendor", lambda: vendor)
    assert devices.onednn_is_faster.__wrapped__() == faster
