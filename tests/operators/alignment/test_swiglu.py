"""Models with gated MLPs: alignment finds permuted units again, and lineage the copies."""

import pytest
import torch
from timm.layers.mlp import SwiGLU, SwiGLUPacked
from timm.models.vision_transformer import VisionTransformer

from reference import random_moves as drawn
from vitarium.architectures.symmetries.base import moved
from vitarium.architectures.symmetries.vit import vit_symmetries
from vitarium.core.registry import choose
from vitarium.evaluation.inputs import Weights
from vitarium.lineage.base import ModelSet
from vitarium.lineage.methods.descent._alignment import align_units
from vitarium.operators.base import Ingredients

SIZES = {"img_size": 8, "patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 3, "in_chans": 1}


@pytest.fixture(params=[SwiGLU, SwiGLUPacked], ids=["two layers", "packed"])
def model(request):
    built = VisionTransformer(**SIZES, num_classes=5, mlp_layer=request.param, mlp_ratio=2)
    return drawn.scrambled(built, 0)


def test_hidden_units_of_gates_and_values_are_permuted_together(model):
    """By hand: rows of both gates and values, and columns of what reads their product."""
    images = torch.randn(4, 1, 8, 8)
    before, weights = model(images), model.state_dict()
    hidden = model.blocks[0].mlp.fc2.in_features
    order = torch.randperm(hidden, generator=torch.Generator().manual_seed(1))
    expected = {}
    for name, tensor in weights.items():
        if name.startswith("blocks.0.mlp.fc1"):
            expected[name] = torch.cat([half[order] for half in tensor.split(hidden)])
        elif name == "blocks.0.mlp.fc2.weight":
            expected[name] = tensor[:, order]
    permuted = moved(vit_symmetries(model), weights, {"blocks.0.mlp": order})
    for name, tensor in permuted.items():
        assert torch.equal(tensor, expected.get(name, weights[name]))
    model.load_state_dict(permuted)
    torch.testing.assert_close(model(images), before, rtol=1e-4, atol=1e-4)


def test_weight_matching_finds_the_permutation_again(model):
    symmetries, weights = vit_symmetries(model), dict(model.state_dict())
    moves = drawn.random_moves(symmetries, torch.Generator().manual_seed(2))
    pair = [Weights("first", weights), Weights("second", moved(symmetries, weights, moves))]
    ingredients = Ingredients(pair, symmetries=lambda: symmetries)
    aligned = dict(choose("operator", "weight_matching")(ingredients))
    assert all(torch.equal(aligned[name], tensor) for name, tensor in weights.items())


def test_lineage_brings_a_permuted_copy_back(model):
    symmetries, weights = vit_symmetries(model), dict(model.state_dict())
    moves = drawn.random_moves(symmetries, torch.Generator().manual_seed(3))
    copy = moved(symmetries, weights, moves)
    trunk = [name for name in weights if not name.startswith("head")]
    pair = [Weights(n, w, skeleton=lambda: model) for n, w in (("a", weights), ("b", copy))]
    aligned = align_units(ModelSet(pair, trunk), [[0], [1]])
    assert aligned.permuted == {"b": "a"}
    assert all(torch.equal(aligned.model_set.models[1][name], weights[name]) for name in trunk)
