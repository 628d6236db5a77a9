"""The plain ViT: how its attention compares queries and keys, and layer scales."""

import math

import pytest
import timm
import torch
from torch.nn import functional as F

from reference import random_moves as drawn
from vitarium import create_model
from vitarium.architectures.symmetries._folding import folded
from vitarium.architectures.symmetries.base import moved
from vitarium.architectures.vit.vit import PlainDeclaration, PlainVit
from vitarium.core.errors import InvalidInput
from vitarium.core.registry import get, section
from vitarium.testing import check_architecture
from vitarium.training.optimize_forward import optimize_forward
from vitarium.training.options import TrainOptions

SIZES = {"img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 12, "num_heads": 3, "depth": 2}


def cosine_model(seed=0):
    return drawn.scrambled(create_model("vit", num_classes=4, attention="cosine", **SIZES), seed)


@pytest.mark.parametrize("settings", [{"attention": "cosine"}, {"init_values": 0.1}])
def test_variants_keep_to_the_contract(settings):
    check_architecture("vit", **settings)


def test_softmax_without_layer_scales_is_what_there_was_and_changes_no_id():
    plain = section("architecture", {"name": "vit", "attention": "softmax", "init_values": None})
    assert plain.factors(defaults=False) == {"name": "vit"}
    arguments = get("architecture", "vit").facts["timm"](plain.config)[1]
    assert not {"qk_norm", "init_values", "attention"} & set(arguments)


@pytest.mark.parametrize("fused", [True, False])
def test_cosine_attention_is_the_softmax_of_cosines_times_each_heads_factor(fused):
    attention = cosine_model().double().blocks[0].attn
    attention.fused_attn = fused
    attention.q_norm.logit_scale.data = torch.tensor([0.3, math.log(10), 9.0]).double()
    tokens = torch.randn(2, 5, 12, dtype=torch.float64)
    q, k, v = attention.qkv(tokens).unflatten(-1, (3, 3, 4)).permute(2, 0, 3, 1, 4)
    factors = torch.tensor([math.exp(0.3), 10, 100]).double()  # never more than 100
    cosines = F.cosine_similarity(q.unsqueeze(3), k.unsqueeze(2), dim=-1)
    attended = (cosines * factors.view(3, 1, 1)).softmax(-1) @ v
    expected = attention.proj(attended.transpose(1, 2).flatten(2))
    assert torch.allclose(attention(tokens), expected, atol=1e-12)


def test_heads_start_at_a_factor_of_ten():
    model = create_model("vit", attention="cosine", **SIZES)
    assert torch.allclose(model.blocks[1].attn.q_norm.logit_scale.exp(), torch.tensor(10.0))


def test_cosines_do_not_depend_on_the_lengths_of_queries_and_keys():
    model, images = cosine_model().double(), torch.randn(3, 1, 8, 8, dtype=torch.float64)
    before = model(images)
    for block in model.blocks:
        block.attn.qkv.weight.data[:24] *= 3
        block.attn.qkv.bias.data[:24] *= 3
    assert torch.allclose(model(images), before, atol=1e-12)


def test_rotations_inside_of_heads_keep_cosines_and_other_maps_do_not():
    model, images = cosine_model().double(), torch.randn(3, 1, 8, 8, dtype=torch.float64)
    symmetries, before = PlainDeclaration.symmetries(model), model(images)
    folded_weights = folded(symmetries, model.state_dict())
    noise = torch.Generator().manual_seed(0)
    moves = drawn.random_moves(symmetries, noise, mix=True)
    model.load_state_dict(moved(symmetries, folded_weights, moves))
    assert torch.allclose(model(images), before, atol=1e-9)
    stretched = {"blocks.0.attn.qk": torch.eye(4).double().mul(torch.arange(1, 5)).expand(3, 4, 4)}
    model.load_state_dict(moved(symmetries, folded_weights, stretched))
    assert not torch.allclose(model(images), before, atol=1e-3)


def test_the_last_block_of_cosines_may_compute_the_class_token_alone():
    model, images = cosine_model(), torch.randn(3, 1, 8, 8)
    before = model(images)
    optimize_forward(model, TrainOptions())
    assert type(model).__name__ == "_ReadsClassTokenAlone"
    assert torch.allclose(model(images), before, atol=1e-5)


def test_normed_queries_and_layer_scales_are_timms():
    settings = SIZES | {"attention": "qk_norm", "init_values": 0.1}
    model = drawn.scrambled(create_model("vit", num_classes=4, **settings), 0)
    name, overrides = get("architecture", "vit").facts["timm"](PlainVit(**settings))
    reference = timm.create_model(name, num_classes=4, **overrides).eval()
    reference.load_state_dict(model.state_dict(), strict=True)
    assert model.blocks[0].attn.k_norm.weight.shape == (4,)  # of each head's channels
    images = torch.randn(3, 1, 8, 8)
    assert torch.equal(model(images), reference(images))


def test_timm_is_told_of_normed_queries_and_layer_scales_and_has_no_cosines():
    as_timm = get("architecture", "vit").facts["timm"]
    chosen = section("architecture", {"name": "vit", "attention": "qk_norm", "init_values": 0.1})
    assert as_timm(chosen.config)[1].items() >= {"qk_norm": True, "init_values": 0.1}.items()
    cosine = section("architecture", {"name": "vit", "attention": "cosine"})
    with pytest.raises(InvalidInput, match="'cosine', which timm's vision transformer has not"):
        as_timm(cosine.config)
