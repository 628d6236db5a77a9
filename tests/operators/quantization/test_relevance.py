"""Relevance of a ViT's layers, against rules written out and derivatives."""

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from vitarium.operators.quantization._relevance import (
    layer_relevance,
    propagate,
    through_linear,
    through_product,
    through_sum,
)

LAYERS = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
VARIANTS = [
    {},
    {"class_token": False, "global_pool": "avg"},
    {"init_values": 0.1, "reg_tokens": 2, "qk_norm": True, "qkv_bias": False},
]


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def a_vit(**factors):
    sizes = {"img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 12, "depth": 2}
    torch.manual_seed(0)
    model = VisionTransformer(**sizes, num_heads=3, num_classes=5, **factors).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model, torch.randn(3, 1, 8, 8)


def test_a_linear_layer_shares_by_positive_contributions():
    inputs, weight, relevance = drawn(3), drawn(4, 3, seed=1), drawn(4, seed=2)
    expected = torch.zeros(3).double()
    for j in range(4):
        contributions = [max(0.0, float(inputs[i] * weight[j, i])) for i in range(3)]
        for i in range(3):
            expected[i] += relevance[j] * contributions[i] / (1e-9 + sum(contributions))
    assert torch.allclose(through_linear(inputs, weight, relevance), expected, atol=1e-12)


def test_a_product_shares_by_inputs_times_derivatives():
    first, second = drawn(2, 3, 4).requires_grad_(), drawn(2, 4, 5, seed=1).requires_grad_()
    relevance = drawn(2, 3, 5, seed=2)
    product = first @ second
    slopes = torch.autograd.grad(product, [first, second], relevance / product.detach())
    shares = through_product(first.detach(), second.detach(), relevance)
    for factor, slope, share in zip((first, second), slopes, shares, strict=True):
        assert torch.allclose(share, factor.detach() * slope / 2, atol=1e-9)
        assert share.sum((1, 2)).allclose(relevance.sum((1, 2)) / 2, atol=1e-9)


def test_terms_of_a_sum_share_by_size_image_by_image():
    first, second = torch.tensor([[3.0], [1.0]]).double(), torch.tensor([[1.0], [1.0]]).double()
    shares = through_sum(first, second, torch.tensor([[1.0], [2.0]]).double())
    assert shares[0].tolist() == [[0.75], [1.0]]
    assert shares[1].tolist() == [[0.25], [1.0]]


def test_terms_that_nearly_cancel_receive_no_more_than_there_is():
    first, second = drawn(2, 6), drawn(2, 6, seed=1)
    second[:, 0] = -first[:, 0] * (1 - 1e-6)
    relevance = drawn(2, 6, seed=2).abs()
    shares = through_sum(first, second, relevance)
    sums = torch.stack([share.sum(1) for share in shares])
    assert sums.sum(0).allclose(relevance.sum(1))
    assert bool((sums >= 0).all())


@pytest.mark.parametrize("factors", VARIANTS)
def test_relevance_is_conserved_between_layers(factors):
    model, images = a_vit(**factors)
    sums = {}
    propagate(
        model, images, torch.tensor([0, 3, 4]), lambda n, r: sums.update({n: r.flatten(1).sum(1)})
    )
    assert sums["head"].tolist() == [1.0, 1.0, 1.0]
    for block in range(2):
        of = {layer: sums[f"blocks.{block}.{layer}"] for layer in LAYERS}
        assert of["mlp.fc2"].allclose(of["mlp.fc1"], atol=1e-6)
        assert of["attn.proj"].allclose(of["attn.qkv"], atol=1e-6)
        assert bool((of["mlp.fc2"] >= -1e-9).all())


def test_every_linear_layer_receives_relevance_and_the_model_stays_as_it_is():
    model, images = a_vit()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    received = layer_relevance(model, images, torch.tensor([0, 3, 4]))
    names = {f"blocks.{block}.{layer}" for block in range(2) for layer in LAYERS}
    assert received.keys() == names | {"head", "patch_embed.proj"}
    assert all(r.shape == (3,) and bool((r > 0).all()) for r in received.values())
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())


def test_a_branch_that_adds_nothing_receives_nothing():
    model, images = a_vit()
    torch.nn.init.zeros_(model.blocks[1].mlp.fc2.weight)
    torch.nn.init.zeros_(model.blocks[1].mlp.fc2.bias)
    received = layer_relevance(model, images, torch.tensor([0, 3, 4]))
    assert received["blocks.1.mlp.fc2"].tolist() == [0.0, 0.0, 0.0]
    assert bool((received["blocks.0.mlp.fc2"] > 0).all())
