"""Orthogonal matching: it finds turned copies again, and keeps the function."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference import random_moves as drawn
from vitarium import create_model, merge
from vitarium.architectures.symmetries._folding import factors, folded, unfolded
from vitarium.architectures.symmetries.base import moved
from vitarium.architectures.symmetries.vit import vit_symmetries
from vitarium.core.errors import IncompatibleWeights
from vitarium.core.registry import choose
from vitarium.evaluation.inputs import Weights
from vitarium.operators.base import Ingredients

SIZE = {"img_size": 28, "embed_dim": 12, "depth": 2, "num_heads": 3, "in_chans": 1}
IMAGES = torch.randn(3, 1, 28, 28, generator=torch.Generator().manual_seed(1)).double()


def build(seed, name="dinov2", **sizes):
    model = create_model(name, num_classes=5, **SIZE | sizes)
    return drawn.scrambled(model, seed).double()


MODELS = [build(seed) for seed in range(2)]
SYMMETRIES = vit_symmetries(MODELS[0])
ONE, TWO = [{n: t.clone() for n, t in m.state_dict().items()} for m in MODELS]


def ingredients(one=ONE, two=TWO, symmetries=SYMMETRIES):
    models = [Weights("one", one), Weights("two", two)]
    return Ingredients(models, symmetries=lambda: symmetries)


def aligned(given, **settings):
    return dict(choose("operator", "orthogonal_matching", **settings)(given))


@torch.no_grad()
def outputs(weights, model=None):
    model = model or build(0)
    model.load_state_dict(weights)
    return model(IMAGES)


def turned(seed):
    """The first model with its units turned and exchanged, in the norms of the second."""
    # inside of heads, orthogonal maps alone can be found; anything else changes lengths
    groups = {
        n: replace(g, maps="orthogonal") if g.maps == "invertible" else g
        for n, g in SYMMETRIES.groups.items()
    }
    draw = torch.Generator().manual_seed(seed)
    moves = drawn.random_moves(replace(SYMMETRIES, groups=groups), draw, mix=True)
    return unfolded(SYMMETRIES, moved(SYMMETRIES, folded(SYMMETRIES, ONE), moves), like=TWO)


@settings(deadline=None, max_examples=6)
@given(st.integers(0, 2**31))
def test_a_turned_copy_is_found_again(seed):
    copy, given = turned(seed), ingredients(two=turned(seed))
    torch.testing.assert_close(outputs(copy), outputs(ONE), rtol=1e-9, atol=1e-9)
    assert (copy["blocks.0.attn.qkv.weight"] - ONE["blocks.0.attn.qkv.weight"]).abs().max() > 0.1
    made = aligned(given)
    assert given.log.metrics["cosine_after"] == pytest.approx(1, abs=1e-9)
    whole, expected = folded(SYMMETRIES, made), folded(SYMMETRIES, ONE)
    for name, tensor in expected.items():
        torch.testing.assert_close(whole[name], tensor, rtol=1e-6, atol=1e-6)
    assert all(torch.equal(made[n], ONE[n]) for n in factors(SYMMETRIES))


def test_a_model_is_aligned_with_itself_as_it_is():
    made = aligned(ingredients(two=ONE))
    for name, tensor in ONE.items():
        torch.testing.assert_close(made[name], tensor, rtol=1e-12, atol=1e-12)


HOW = [
    {},
    {"stream": "permutation"},
    {"channels": "permutation"},
    {"stream": "permutation", "channels": "permutation"},
    {"stream": "none", "attention_heads": False},
    {"channels": "none", "units": False},
]


@pytest.mark.parametrize("how", HOW)
def test_the_function_stays(how):
    given = ingredients()
    made = aligned(given, **how)
    torch.testing.assert_close(outputs(made), outputs(TWO), rtol=1e-9, atol=1e-9)
    metrics = given.log.metrics
    assert metrics["cosine_after"] > metrics["cosine_before"]


def test_what_is_turned_comes_closer_than_what_is_only_exchanged():
    found = []
    for how in HOW[3], HOW[1], HOW[0]:
        given = ingredients()
        aligned(given, **how)
        found.append(given.log.metrics["cosine_after"])
    assert found == sorted(found)
    assert found[0] < found[-1] - 0.01


def test_a_stream_that_stays_leaves_what_only_it_touches():
    made = aligned(ingredients(), stream="none")
    gone = set(factors(SYMMETRIES))
    alone = {"cls_token", "pos_embed", "patch_embed.proj.weight"} - gone
    for name in alone:
        torch.testing.assert_close(made[name], TWO[name], rtol=1e-12, atol=1e-12)


def test_the_same_settings_give_the_same_weights():
    one, two = aligned(ingredients(), seed=3), aligned(ingredients(), seed=3)
    assert all(torch.equal(one[n], two[n]) for n in one)


def test_a_stream_that_cannot_be_turned_is_refused_and_can_be_permuted():
    models = [
        build(s, "timm", model="vit_tiny_patch16_224", pre_norm=True, img_size=28, patch_size=14)
        for s in (0, 1)
    ]
    symmetries = vit_symmetries(models[0])
    weights = [{n: t.clone() for n, t in m.state_dict().items()} for m in models]
    with pytest.raises(IncompatibleWeights, match=r"one: .* permuted, but not rotated"):
        aligned(ingredients(*weights, symmetries))
    made = aligned(ingredients(*weights, symmetries), stream="permutation")
    torch.testing.assert_close(
        outputs(made, models[0]), outputs(weights[1], models[0]), rtol=1e-9, atol=1e-9
    )


def test_a_model_without_head_keeps_the_order_of_its_features():
    models = [build(s, "vit", patch_size=14) for s in (0, 1)]
    for model in models:
        model.head = torch.nn.Identity()
    symmetries = vit_symmetries(models[0])
    weights = [{n: t.clone() for n, t in m.state_dict().items()} for m in models]
    made = aligned(ingredients(*weights, symmetries))
    torch.testing.assert_close(
        outputs(made, models[0]), outputs(weights[1], models[0]), rtol=1e-9, atol=1e-9
    )


def test_a_model_that_is_not_finite_is_named():
    bad = {n: t.clone() for n, t in ONE.items()}
    bad["cls_token"][0, 0, 0] = float("inf")
    with pytest.raises(IncompatibleWeights, match="one: cls_token has entries"):
        aligned(ingredients(one=bad))


@torch.no_grad()
def test_an_aligned_model_of_a_zoo_computes_what_it_did(kept_zoo):
    ids = kept_zoo.models().query("stage == 'pretrain'")["id"].tolist()
    aligned_id = merge(kept_zoo, "orthogonal_matching", models=ids).id
    x = torch.randn(3, 1, 8, 8)
    torch.testing.assert_close(
        kept_zoo.load(aligned_id)(x), kept_zoo.load(ids[1])(x), rtol=1e-3, atol=1e-4
    )
