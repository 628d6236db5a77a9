"""Reversible blocks: their inverse, gradients without stored activations, and read-outs."""

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call, grad

from reference import random_moves as drawn
from vitarium import create_model
from vitarium.architectures.patch_tokens import require_plain
from vitarium.architectures.structured.reversible import ReversibleBlock, fused
from vitarium.core.devices import meta_device
from vitarium.core.errors import InvalidInput
from vitarium.objectives.distillation._blocks import recording
from vitarium.testing import check_architecture

SIZES = {"img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 8, "num_heads": 2, "depth": 3}
MEAN = {"class_token": False, "global_pool": "avg"}
DROPPING = {"proj_drop_rate": 0.2, "attn_drop_rate": 0.2, "drop_path_rate": 0.3}


def pair(**settings):
    """Models of the same weights in float64: one that computes activations again, one that not."""
    model = create_model("reversible", num_classes=4, **SIZES | settings)
    model = drawn.scrambled(model, 0).double().train()
    ordinary = deepcopy(model)
    ordinary.recompute = False
    return model, ordinary


def pixels(batch=3):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, 1, 8, 8, generator=generator, dtype=torch.float64)


def trained_once(model, images):
    """Outputs, gradients by name, and the random number after them."""
    torch.manual_seed(5)
    outputs = model(images)
    outputs.square().sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    return outputs.detach(), gradients, torch.rand(())


def assert_close(gradients, expected, share=1e-10):
    assert gradients.keys() == expected.keys()
    largest = max(gradient.abs().max() for gradient in expected.values())
    for name, gradient in expected.items():
        assert (gradients[name] - gradient).abs().max() <= share * largest, name


@pytest.mark.parametrize("settings", [MEAN | {"fusion": "max"}, {"fusion": "add", "depth": 1}])
def test_variants_keep_to_the_contract(settings):
    check_architecture("reversible", **settings)


@pytest.mark.parametrize(
    ("settings", "published"),
    [({"patch_size": 2}, 1_227_146), ({"patch_size": 4}, 1_207_178)],
)
def test_parameters_are_as_many_as_published(settings, published):
    sizes = {"img_size": 32, "embed_dim": 128, "depth": 6, "num_heads": 4, **MEAN}
    with meta_device():
        model = create_model("reversible", num_classes=10, **sizes, **settings)
    assert sum(p.numel() for p in model.parameters()) == published
    assert sum(p.numel() for p in model.blocks[3].parameters()) == 198_272


def test_the_released_default_has_its_number_of_parameters():
    sizes = {"img_size": 32, "patch_size": 2, "embed_dim": 768, "depth": 8, "num_heads": 8}
    with meta_device():
        model = create_model("reversible", num_classes=10, **sizes, **MEAN)
    assert sum(p.numel() for p in model.parameters()) == 56_928_010


@pytest.mark.parametrize(("preset", "millions"), [("small", 22.44), ("base", 87.34)])
def test_presets_have_the_published_sizes(preset, millions):
    with meta_device():
        model = create_model(f"rev_vit_{preset}_patch16_224")
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 2) == millions


@torch.no_grad()
def test_inputs_follow_from_outputs():
    model, _ = pair(depth=6)
    tokens = torch.randn(2, 5, 16, dtype=torch.float64)
    outputs = model.blocks(tokens)
    for block in reversed(model.blocks):
        outputs = block.inverse(outputs)
    assert torch.allclose(outputs, tokens, atol=1e-12)


@torch.no_grad()
def test_a_block_adds_attention_of_one_stream_then_the_mlp_of_the_other():
    block, tokens = pair()[0].blocks[0], torch.randn(2, 5, 16, dtype=torch.float64)
    first = tokens[..., :8] + block.attn(block.norm1(tokens[..., 8:]))
    second = tokens[..., 8:] + block.mlp(block.norm2(first))
    assert torch.equal(block(tokens), torch.cat([first, second], -1))


@pytest.mark.parametrize("settings", [{}, {"depth": 4, "fusion": "mean"}, MEAN, DROPPING])
def test_gradients_are_those_of_ordinary_autograd(settings):
    results = [trained_once(model, pixels()) for model in pair(**settings)]
    (outputs, gradients, after), (expected_outputs, expected, expected_after) = results
    assert torch.equal(outputs, expected_outputs)
    assert torch.equal(after, expected_after)  # what is replayed is not drawn
    assert_close(gradients, expected)


def test_frozen_weights_get_no_gradient_and_others_the_same():
    results = []
    for model in pair():
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("attn" in name or name.startswith("head"))
        model(pixels()).square().sum().backward()
        results.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert all("attn" in name or name.startswith("head") for name in results[0])
    assert_close(*results)


def test_in_bfloat16_the_forward_pass_is_replayed_in_bfloat16():
    results = []
    for model in pair():
        model = model.float()
        with torch.autocast("cpu", torch.bfloat16):
            outputs = model(pixels().float())
        outputs.float().square().sum().backward()
        results.append({name: p.grad for name, p in model.named_parameters()})
    assert_close(*results, share=1e-6)  # replayed in float32 they would be 8e-4 from these


@pytest.mark.parametrize("recompute", [True, False])
def test_memory_does_not_grow_with_depth(recompute):
    def stored(depth):
        model = pair(depth=depth)[not recompute]
        weights = {p.data_ptr() for p in model.parameters()}
        sizes = []

        def pack(tensor):
            if tensor.data_ptr() not in weights:
                sizes.append(tensor.numel())
            return tensor

        with saved_tensors_hooks(pack, lambda tensor: tensor):
            model(pixels())
        return sum(sizes)

    assert (stored(2) == stored(8)) == recompute


def test_weights_put_in_from_outside_are_those_of_the_backward_pass():
    model, ordinary = pair()
    doubled = {name: 2 * weight.detach() for name, weight in model.named_parameters()}

    def loss(weights):
        return functional_call(model, weights, (pixels(),)).square().sum()

    leaves = {name: weight.clone().requires_grad_() for name, weight in doubled.items()}
    by_autograd = torch.autograd.grad(loss(leaves), list(leaves.values()))
    ordinary.load_state_dict(doubled)
    expected = trained_once(ordinary, pixels())[1]
    assert_close(dict(zip(leaves, by_autograd, strict=True)), expected)
    assert_close(grad(loss)(doubled), expected)  # in torch.func, by ordinary autograd


def test_what_is_recorded_of_blocks_has_its_graph():
    model, _ = pair()
    with recording(model, ["hidden.1"]) as recorded:
        model(pixels())
    recorded["hidden.1"].square().sum().backward()
    assert model.blocks[0].mlp.fc1.weight.grad is not None
    assert model.blocks[2].mlp.fc1.weight.grad is None


def test_a_second_derivative_is_refused_in_training_and_there_in_eval_mode():
    model, _ = pair()

    def first_derivative(model):
        loss = model(pixels()).square().sum()
        return torch.autograd.grad(loss, [model.blocks[0].mlp.fc1.weight], create_graph=True)[0]

    with pytest.raises(RuntimeError, match="differentiate twice what is recomputed"):
        first_derivative(model)
    for block in model.eval().blocks:
        block.attn.fused_attn = False  # which has no second derivative anywhere
    first_derivative(model).sum().backward()


def test_without_branches_both_streams_are_the_embedding():
    model, _ = pair()
    for block in model.blocks:
        for parameter in (*block.attn.proj.parameters(), *block.mlp.fc2.parameters()):
            nn.init.zeros_(parameter)
    embedded = model._pos_embed(model.patch_embed(pixels()))
    assert torch.equal(embedded[..., :8], embedded[..., 8:])
    assert torch.equal(model.blocks(embedded), embedded)


def test_the_sum_of_streams_after_one_block_without_mlp():
    block = ReversibleBlock(8, 2).double()
    for parameter in block.mlp.fc2.parameters():
        nn.init.zeros_(parameter)
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    streams = block(torch.cat([x, x], -1))
    assert torch.allclose(fused(streams, "add"), x + (x + block.attn(block.norm1(x))))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("concat", [1.0, 5.0, 3.0, 2.0]),
        ("add", [4.0, 7.0]),
        ("mean", [2.0, 3.5]),
        ("max", [3.0, 5.0]),
        ("min", [1.0, 2.0]),
    ],
)
def test_streams_are_fused(kind, expected):
    assert fused(torch.tensor([1.0, 5.0, 3.0, 2.0]), kind).tolist() == expected


@pytest.mark.parametrize("settings", [{"fusion": "concat"}, MEAN | {"fusion": "concat"}])
def test_the_head_sees_both_streams_normalized_together(settings):
    model, _ = pair(**settings)
    streams = model.blocks(model._pos_embed(model.patch_embed(pixels())))
    features = streams.mean(1) if settings.keys() & {"class_token"} else streams[:, 0]
    norm = model.fc_norm if settings.keys() & {"class_token"} else model.norm
    normed = nn.functional.layer_norm(features, (16,), norm.weight, norm.bias, 1e-6)
    assert torch.allclose(model(pixels()), model.head(normed), atol=1e-12)


def test_weights_of_a_plain_vit_give_another_function():
    model, _ = pair(fusion="mean")
    plain = create_model("vit", num_classes=4, **SIZES).double().eval()
    plain.load_state_dict(model.state_dict())
    assert not torch.allclose(model.eval()(pixels()), plain(pixels()), atol=1e-2)


def test_blocks_that_are_twice_as_wide_are_no_plain_ones():
    with pytest.raises(InvalidInput, match="masked modeling needs a plain vision transformer"):
        require_plain(pair()[0], "masked modeling")
