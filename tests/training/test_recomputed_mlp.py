"""Frozen MLPs compute their hidden units again in backward, to the same bits."""

from copy import deepcopy

import pytest
import torch
from timm.layers.mlp import Mlp
from torch import nn

from vitarium.training._recomputed_mlp import RecomputedMlp, recompute_frozen

WIDTH = 8


def layers(count=4, **settings):
    torch.manual_seed(0)
    mlps = [Mlp(WIDTH, 4 * WIDTH, **settings) for _ in range(count)]
    return nn.Sequential(*mlps).requires_grad_(False)


def kinds(model):
    return [type(mlp) is RecomputedMlp for mlp in model]


def saved_widths(model, tokens):
    widths = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: widths.append(tensor.shape[-1]) or tensor, lambda tensor: tensor
    ):
        model(tokens)
    return widths


def test_every_second_one_keeps_its_bits_and_forgets_its_hidden_units():
    plain = layers()
    model = deepcopy(plain)
    recompute_frozen(model)
    assert kinds(model) == [True, False, True, False]
    tokens = torch.randn(3, 5, WIDTH, requires_grad=True)
    outputs = [each(tokens) for each in (plain, model)]
    assert torch.equal(*outputs)
    gradients = [torch.autograd.grad(output.square().sum(), tokens)[0] for output in outputs]
    assert torch.equal(*gradients)
    hidden = [saved_widths(each, tokens).count(4 * WIDTH) for each in (plain, model)]
    assert hidden[1] < hidden[0]


@pytest.mark.parametrize("settings", [{"drop": 0.1}, {"norm_layer": nn.LayerNorm}])
def test_what_draws_at_random_or_is_no_plain_mlp_is_left_alone(settings):
    model = layers(**settings)
    recompute_frozen(model)
    assert not any(kinds(model))


def test_an_mlp_of_which_anything_learns_is_left_alone():
    model = layers()
    for mlp in model:
        mlp.fc2.bias.requires_grad_(True)
    recompute_frozen(model)
    assert not any(kinds(model))


def test_derivatives_forward_and_scores_need_no_memory_for_backward():
    plain = layers()
    model = deepcopy(plain)
    recompute_frozen(model)
    tokens, tangent = torch.randn(2, WIDTH), torch.randn(2, WIDTH)
    assert torch.equal(
        torch.func.jvp(model, (tokens,), (tangent,))[1],
        torch.func.jvp(plain, (tokens,), (tangent,))[1],
    )
    with torch.no_grad():
        assert torch.equal(model(tokens), plain(tokens))
