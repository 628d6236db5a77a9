"""Models of integers: how they compute, and what they refuse."""

import copy

import pytest
import torch

from vitarium.architectures.create import create_model
from vitarium.architectures.quantized.quantized_vit import (
    QuantizedVit,
    fit_weights,
    pack_weights,
    set_execution,
    simulated_vit,
)
from vitarium.core import seeds
from vitarium.core.config import InvalidConfig
from vitarium.core.registry import choose

TINY = {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}


def built(**settings):
    with seeds.seeded(0):
        return create_model("quantized_vit", num_classes=3, **{**TINY, **settings}).eval()


def images():
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("bits", [3, 4, 5, 8])
def test_packed_weights_compute_what_simulated_ones_do(bits):
    config = QuantizedVit(**TINY, weight_bits=bits, activation_bits=8)
    with seeds.seeded(0):
        model = simulated_vit(config, 3).eval()
    fit_weights(model)
    simulated = model(images())
    assert len(model.blocks[0].mlp.fc1.weight().unique()) > 2**bits  # a grid for each row
    assert all(len(row.unique()) <= 2**bits for row in model.blocks[0].mlp.fc1.weight())
    pack_weights(model)
    torch.testing.assert_close(model(images()), simulated, rtol=1e-5, atol=1e-6)
    codes = model.blocks[0].attn.qkv.weight.codes
    assert codes.dtype == torch.uint8
    assert codes.numel() == 72 * 24 * bits // 8


@pytest.mark.parametrize(("weight_bits", "activation_bits"), [(8, 8), (4, 6), (3, 3)])
def test_integers_multiply_to_the_same(weight_bits, activation_bits):
    model = built(weight_bits=weight_bits, activation_bits=activation_bits)
    for block in model.blocks:  # zero points that are not in the middle
        block.mlp.fc2.input.zero_point.fill_(2)
    with torch.no_grad():
        simulated = model(images())
        set_execution(model, "int8")
        torch.testing.assert_close(model(images()), simulated, rtol=1e-4, atol=1e-5)


def test_integers_have_the_gradient_of_the_simulation():
    model, x = built(execution="int8"), images().requires_grad_()
    (gradient,) = torch.autograd.grad(model(x).square().sum(), x)
    set_execution(model, "simulated")
    (expected,) = torch.autograd.grad(model(x).square().sum(), x)
    assert torch.equal(gradient, expected)
    assert gradient.abs().max() > 0


def test_weights_that_are_read_again_are_unpacked_again():
    first, second = built(), built(weight_bits=8)
    with torch.inference_mode():
        first(images())
    state = {name: tensor.clone() for name, tensor in second.state_dict().items()}
    state["blocks.0.mlp.fc2.weight.scale"] *= 2
    second.load_state_dict(state)
    first.load_state_dict(state)
    assert torch.equal(first(images()), second(images()))
    assert copy.deepcopy(first).double()(images().double()).dtype == torch.float64


def test_bits_layer_by_layer():
    model = built(weight_bits=(3, 4, 5, 6, 7, 8, 3, 4), activation_bits=(8, 7, 6, 5, 4, 3, 8, 7))
    assert [block.attn.qkv.weight.bits for block in model.blocks] == [3, 7]
    assert [block.mlp.fc1.input.bits for block in model.blocks] == [6, 8]
    assert model.blocks[1].attn.probabilities.bits == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight_bits": 2}, "greater than or equal to 3"),
        ({"activation_bits": 9}, "less than or equal to 8"),
        ({"weight_bits": (4, 4)}, "weight_bits has 2 numbers; 2 blocks have 8 layers"),
        ({"execution": "int8", "activation_bits": None}, "it needs activation_bits"),
    ],
)
def test_what_does_not_go_together_is_refused(settings, message):
    with pytest.raises(InvalidConfig, match=message):
        choose("architecture", "quantized_vit", **TINY, **settings)


def test_quantized_attention_is_attention_without_quantizers():
    plain = create_model("vit", num_classes=3, **TINY).eval()
    model = simulated_vit(QuantizedVit(**TINY, activation_bits=None, embedding_bits=None), 3).eval()
    for block, original in zip(model.blocks, plain.blocks, strict=True):
        block.attn.qkv.weight.quantizer = torch.nn.Identity()
        block.attn.proj.weight.quantizer = torch.nn.Identity()
        block.attn.qkv.weight.values.data.copy_(original.attn.qkv.weight)
        block.attn.proj.weight.values.data.copy_(original.attn.proj.weight)
        tokens = torch.randn(2, 5, 24)
        torch.testing.assert_close(block.attn(tokens), original.attn(tokens))


def test_every_operand_of_attention_is_rounded():
    model, passed = built(activation_bits=3), {}
    for name in ("queries", "keys", "values", "probabilities"):
        quantizer = model.blocks[1].attn.get_submodule(name)
        quantizer.register_forward_hook(lambda _, x, y, name=name: passed.update({name: y.shape}))
    model(images())
    heads = torch.Size([2, 2, 5, 12])
    assert passed == {
        "queries": heads,
        "keys": heads,
        "values": heads,
        "probabilities": torch.Size([2, 2, 5, 5]),
    }
