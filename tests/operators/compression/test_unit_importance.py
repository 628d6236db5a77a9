"""Importance of units: against models without them, and against the formula, term by term."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from vitarium.core import seeds
from vitarium.core.registry import choose
from vitarium.operators.compression._unit_importance import (
    Divergences,
    dependences,
    gaussian_gram,
    hsic,
)
from vitarium.operators.compression._vit_slices import sliced

SIZES = {"img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 6, "depth": 2, "num_heads": 2}
SECTION = choose("architecture", "vit", **SIZES, mlp_ratio=1.5)
EVERYTHING = {"channels", "heads", "hidden"}


class Images:
    """Some images, as operators see them."""

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def batches(self, size):
        return [SimpleNamespace(images=part) for part in self.images.split(size)]


def silent(done, total):
    pass


@pytest.fixture
def vit():
    with seeds.seeded(0):
        model = SECTION(5).double().eval().requires_grad_(False)
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


@pytest.fixture
def images():
    return torch.randn(7, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def symmetries(vit):
    return SECTION.plugin.facts["symmetries"](vit)


@torch.no_grad()
def divergence(vit, other, images):
    log_p, log_q = vit(images).log_softmax(1), other.log_softmax(1)
    return float(F.kl_div(log_q, log_p, reduction="batchmean", log_target=True))


def without(layer, columns, vit, images):
    """Outputs while inputs of a layer are zero."""

    def hide(_, inputs):
        hidden = inputs[0].clone()
        hidden[..., columns] = 0
        return (hidden,)

    with layer.register_forward_pre_hook(hide):
        return vit(images)


@torch.no_grad()
def without_channel(vit, channel, images):
    """Outputs of a model that is built without the channel, its tensors cut by their names."""
    axes = {"head.weight": [1], "head.bias": []}
    weights = {}
    for name, tensor in vit.state_dict().items():
        if name.endswith(("qkv.weight", "fc1.weight")):
            cut = [1]
        elif name.endswith(("qkv.bias", "fc1.bias")):
            cut = []
        elif name in ("cls_token", "pos_embed"):
            cut = [2]
        else:
            cut = axes.get(name, [0])
        array = tensor.numpy()
        for axis in cut:
            array = np.delete(array, channel, axis)
        weights[name] = torch.from_numpy(array)
    sizes = {**SIZES, "embed_dim": 5, "head_dim": 3, "hidden": (9, 9)}
    smaller = choose("architecture", "uneven_vit", **sizes)(5).double().eval()
    smaller.load_state_dict(weights)
    return smaller(images)


def test_divergences_are_those_of_models_without_the_unit(vit, images):
    before = {name: tensor.clone() for name, tensor in vit.state_dict().items()}
    rank = Divergences(vit, SECTION, symmetries(vit))
    ranked = rank(Images(images), EVERYTHING, 3, silent)
    expected = {
        "stream": [divergence(vit, without_channel(vit, c, images), images) for c in range(6)]
    }
    for n, block in enumerate(vit.blocks):
        heads = [without(block.attn.proj, slice(3 * h, 3 * h + 3), vit, images) for h in range(2)]
        units = [without(block.mlp.fc2, u, vit, images) for u in range(9)]
        expected[f"blocks.{n}.attn.heads"] = [divergence(vit, each, images) for each in heads]
        expected[f"blocks.{n}.mlp"] = [divergence(vit, each, images) for each in units]
    assert ranked.keys() == expected.keys()
    for group, values in expected.items():
        torch.testing.assert_close(ranked[group], torch.tensor(values, dtype=torch.float64))
        assert (ranked[group] > 0).all()
    assert all(torch.equal(before[name], tensor) for name, tensor in vit.state_dict().items())


def test_hidden_units_that_are_left_out_together_count_alike(vit, images):
    rank = Divergences(vit, SECTION, symmetries(vit), at_once=4)
    ranked = rank(Images(images), {"hidden"}, 7, silent)
    assert ranked.keys() == {"blocks.0.mlp", "blocks.1.mlp"}
    of_units = ranked["blocks.1.mlp"].tolist()
    assert [len(set(of_units[start : start + 4])) for start in (0, 4, 8)] == [1, 1, 1]
    fc2 = vit.blocks[1].mlp.fc2
    expected = divergence(vit, without(fc2, slice(4, 8), vit, images), images)
    assert of_units[4] == pytest.approx(expected)
    assert of_units[8] == pytest.approx(divergence(vit, without(fc2, 8, vit, images), images))


def test_a_unit_that_nothing_reads_has_no_importance(vit, images):
    vit.blocks[0].mlp.fc2.weight[:, 3] = 0
    ranked = Divergences(vit, SECTION, symmetries(vit))(Images(images), {"hidden"}, 7, silent)
    assert ranked["blocks.0.mlp"][3] == 0


def test_hsic_is_the_trace_is_symmetric_and_0_against_a_constant():
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(6, d, dtype=torch.float64, generator=generator) for d in (3, 2))
    grams = gaussian_gram(x), y @ y.T
    centering = np.eye(6) - 1 / 6
    first, second = (gram.numpy() for gram in grams)
    expected = np.trace(first @ centering @ second @ centering) / 25
    assert float(hsic(*grams)) == pytest.approx(expected)
    assert expected > 0
    assert float(hsic(*grams[::-1])) == pytest.approx(expected)
    constant = gaussian_gram(torch.ones(6, 3, dtype=torch.float64))
    assert float(hsic(constant, grams[1])) == pytest.approx(0, abs=1e-15)
    widths = (1, 2, 4, 8, 16)
    squared = float((x[0] - x[1]).square().sum())
    kernel = np.mean([np.exp(-squared / (2 * width**2)) for width in widths])
    assert float(grams[0][0, 1]) == pytest.approx(kernel)


def test_dependences_are_as_the_formula_has_them(vit, images):
    ranked = dependences(vit, Images(images), EVERYTHING)
    seen = {}
    layers = {"hidden": vit.blocks[1].mlp.fc2, "heads": vit.blocks[1].attn.proj, "stream": vit.norm}
    hooks = [
        layer.register_forward_pre_hook(lambda _, x, name=name: seen.update({name: x[0]}))
        for name, layer in layers.items()
    ]
    outputs = vit(images).softmax(1)
    for hook in hooks:
        hook.remove()
    gram = outputs @ outputs.T

    def of_units(values):
        dependence = [hsic(gaussian_gram(values[..., u]), gram) for u in range(values.shape[-1])]
        sizes = [values[..., u].abs().sum() for u in range(values.shape[-1])]
        scaled = [(torch.stack(v) - min(v)) / (max(v) - min(v)) for v in (dependence, sizes)]
        return 0.1 * scaled[0] + 0.9 * scaled[1]

    torch.testing.assert_close(ranked["blocks.1.mlp"], of_units(seen["hidden"]))
    torch.testing.assert_close(ranked["stream"], of_units(seen["stream"]))
    first, second = (gaussian_gram(part.mean(-1)) for part in seen["heads"].split(3, -1))
    shared = 0.1 * hsic(first, second)
    expected = torch.stack([hsic(first, gram) - shared, hsic(second, gram) - shared])
    torch.testing.assert_close(ranked["blocks.1.attn.heads"], expected)


def test_without_heads_and_hidden_units_it_is_as_with_zeros_in_their_place(vit, images):
    remaining = {
        "blocks.0.attn.heads": torch.tensor([1]),
        "blocks.1.attn.heads": torch.tensor([0]),
        "blocks.0.mlp": torch.tensor([0, 2, 3, 8]),
        "blocks.1.mlp": torch.tensor([1, 2, 5, 7]),
    }
    sizes = {**SIZES, "num_heads": 1, "head_dim": 3, "hidden": (4, 4)}
    smaller = choose("architecture", "uneven_vit", **sizes)(5).double().eval()
    shapes = {name: tensor.shape for name, tensor in smaller.state_dict().items()}
    smaller.load_state_dict(sliced(symmetries(vit), vit.state_dict(), remaining, shapes))
    for block, head in zip(vit.blocks, (0, 1), strict=True):
        block.attn.proj.weight[:, 3 * head : 3 * head + 3] = 0
    for number, block in enumerate(vit.blocks):
        gone = sorted(set(range(9)) - set(remaining[f"blocks.{number}.mlp"].tolist()))
        block.mlp.fc2.weight[:, gone] = 0
    torch.testing.assert_close(smaller(images), vit(images), rtol=0, atol=1e-12)
