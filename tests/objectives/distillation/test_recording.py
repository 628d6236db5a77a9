"""Taking down what happens in blocks changes nothing, and leaves nothing behind."""

import pytest
import timm
import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from vitarium import create_model
from vitarium.architectures.features import transformer_blocks
from vitarium.core.errors import InvalidInput
from vitarium.objectives.distillation._blocks import recording

SIZES = {"img_size": 16, "patch_size": 4, "embed_dim": 12, "depth": 4, "num_heads": 3}
SWIN = {
    "img_size": 32,
    "patch_size": 2,
    "window_size": 4,
    "embed_dim": 12,
    "depths": (2, 2),
    "num_heads": (3, 3),
}


def made(name):
    torch.manual_seed(0)
    if name == "swin":
        model = timm.create_model("swin_tiny_patch4_window7_224", **SWIN, num_classes=5)
        return model.eval(), torch.randn(2, 3, 32, 32)
    return create_model(name, num_classes=5, **SIZES).eval(), torch.randn(2, 3, 16, 16)


def names_of(numbers):
    return [f"{kind}.{number}" for kind in ("qkv", "hidden") for number in numbers]


def hooks(model):
    return sum(len(module._forward_hooks) for module in model.modules())


@pytest.mark.parametrize("name", ["vit", "mini_deit", "swin"])
def test_outputs_and_gradients_are_bitwise_what_they_are_without(name):
    model, images = made(name)
    names = names_of(range(len(transformer_blocks(model))))
    plain = model(images)
    plain.square().sum().backward()
    expected = [weight.grad.clone() for weight in model.parameters()]
    model.zero_grad()
    with recording(model, names) as found:
        outputs = model(images)
    outputs.square().sum().backward()
    assert torch.equal(outputs, plain)
    assert all(map(torch.equal, expected, (weight.grad for weight in model.parameters())))
    assert set(found) == set(names)
    assert hooks(model) == 0


@pytest.mark.parametrize("name", ["vit", "mini_deit", "swin"])
def test_each_block_is_recorded_where_it_is_used(name):
    model, images = made(name)
    places = list(transformer_blocks(model).values())
    seen = {}
    for number, block in enumerate(places):
        block.register_forward_hook(
            lambda _, given, output, k=number: seen.__setitem__(k, (given[0], output))
        )
    with recording(model, names_of(range(len(places)))) as found:
        model(images)
    for number, block in enumerate(places):
        given, output = seen[number]
        assert found[f"hidden.{number}"] is output
        if name != "swin":  # a window's tokens are gathered inside of its block
            assert torch.equal(found[f"qkv.{number}"], block.attn.qkv(block.norm1(given)))
    shapes = [tuple(found[f"qkv.{number}"].shape) for number in range(len(places))]
    tokens = {"vit": 17, "mini_deit": 16}
    expected = (
        [(2 * 16, 16, 36)] * 2 + [(2 * 4, 16, 72)] * 2
        if name == "swin"
        else [(2, tokens[name], 36)] * 4
    )
    assert shapes == expected


def test_blocks_that_share_a_matrix_are_told_apart():
    model, images = made("mini_deit")
    with recording(model, ["qkv.0", "qkv.1"]) as found:
        model(images)
    assert model.blocks[0].attn.qkv.lender is model.blocks[1].attn.qkv.lender
    assert not torch.equal(found["qkv.0"], found["qkv.1"])


def test_no_hook_stays_after_an_error():
    model, images = made("vit")
    with pytest.raises(AssertionError), recording(model, ["qkv.0", "hidden.2"]):
        model(images[..., 1:])  # timm asserts the image's size
    with pytest.raises(InvalidInput), recording(model, ["qkv.0", "qkv.1", "qkv.7"]):
        pass
    assert hooks(model) == 0


def test_inside_of_vmap_each_model_has_its_own():
    models = [made("vit")[0], create_model("vit", num_classes=5, **SIZES).eval()]
    images = torch.randn(2, 4, 3, 16, 16)
    template, (weights, buffers) = made("vit")[0], stack_module_state(models)

    def one(own, others, batch):
        with recording(template, names_of([1])) as found:
            outputs = functional_call(template, (own, others), (batch,))
        return outputs, found["qkv.1"], found["hidden.1"]

    stacked = vmap(one)(weights, buffers, images)
    for k, model in enumerate(models):
        with recording(model, names_of([1])) as found:
            outputs = model(images[k])
        for mine, theirs in zip(stacked, (outputs, found["qkv.1"], found["hidden.1"]), strict=True):
            assert torch.allclose(mine[k], theirs, atol=1e-6)
    assert hooks(template) == 0


def test_what_cannot_be_recorded_is_refused():
    model = made("vit")[0]
    with (
        pytest.raises(InvalidInput, match="no block 4: it has 4, from 0"),
        recording(model, ["hidden.4"]),
    ):
        pass
    model.blocks[1].attn.qkv = None
    with (
        pytest.raises(InvalidInput, match=r"block 1 .* has no attn.qkv"),
        recording(model, ["qkv.1"]),
    ):
        pass
    with (
        pytest.raises(InvalidInput, match="no transformer blocks"),
        recording(nn.Linear(2, 2), ["hidden.0"]),
    ):
        pass
