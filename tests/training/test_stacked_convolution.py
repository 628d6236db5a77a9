"""Convolutions as matrix products are torch's convolutions, and the same in any company."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, vmap

from vitarium.training._stacked_modules import MatmulConv2d, multiply_convolutions

SETTINGS = [
    {"kernel_size": 4, "stride": 4},
    {"kernel_size": (3, 2), "stride": (1, 2), "padding": (1, 0)},
    {"kernel_size": 3, "padding": "same", "dilation": 2, "bias": False},
    {"kernel_size": 3, "padding": 1, "padding_mode": "reflect", "groups": 2},
    {"kernel_size": 5, "padding": 2, "groups": 4},
]


def convolution(settings) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(4, 8, **settings)).double()


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_outputs_and_gradients_are_those_of_conv2d(settings):
    expected, model = convolution(settings), convolution(settings)
    multiply_convolutions(model)
    assert isinstance(model[0], MatmulConv2d)
    images = torch.randn(3, 4, 12, 16, dtype=torch.double, requires_grad=True)
    results = []
    for module in (expected, model):
        output = module(images)
        weights = [images, *module.parameters()]
        results.append([output, *torch.autograd.grad(output.square().sum(), weights)])
    for theirs, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("company", [2, 3, 5])
def test_a_models_bits_are_the_same_beside_any_number_of_others(settings, company):
    model = convolution(settings).float()
    multiply_convolutions(model)
    torch.manual_seed(1)
    weights = {name: torch.randn(16, *w.shape) for name, w in model.named_parameters()}
    images = torch.randn(16, 32, 4, 8, 8)

    def outputs_and_gradients(k):
        stacked = {name: w[:k].clone().requires_grad_() for name, w in weights.items()}
        outputs = vmap(lambda w, x: functional_call(model, w, (x,)))(stacked, images[:k])
        gradients = torch.autograd.grad(outputs.square().sum(), list(stacked.values()))
        return [outputs, *gradients]

    for few, all_ in zip(outputs_and_gradients(company), outputs_and_gradients(16), strict=True):
        assert torch.equal(few, all_[:company])
