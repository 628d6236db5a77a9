"""Blocks that are left out: which, and what is left."""

import math
from copy import deepcopy

import pytest
import torch

from reference.random_moves import scrambled
from vitarium.core.errors import IncompatibleWeights
from vitarium.core.registry import choose
from vitarium.evaluation.inputs import EvalModel, Weights
from vitarium.operators.base import Ingredients
from vitarium.operators.compression.pruning.depth_pruning import (
    DepthPruning,
    angular_distances,
    block_influence,
)

SIZES = {"img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 12, "depth": 4, "num_heads": 3}
SECTION = choose("architecture", "vit", **SIZES)
FEW = {"num_images": 16, "batch_size": 8}


def without_branches(model, *numbers):
    """Both branches of these blocks give zero."""
    changed = deepcopy(model)
    for number in numbers:
        for layer in (changed.blocks[number].attn.proj, changed.blocks[number].mlp.fc2):
            layer.weight.zero_()
            layer.bias.zero_()
    return changed


@pytest.fixture(scope="module")
def model():
    return scrambled(SECTION(10), 0).requires_grad_(False)


def pruned(model, digits, **settings):
    ingredients = Ingredients(
        [Weights("m", model.state_dict(), skeleton=lambda: model)],
        subject=lambda number: EvalModel("m", deepcopy(model), digits),
    )
    section = choose("operator", "depth_pruning", **FEW, **settings)
    smaller = section.plugin.facts["architecture"](section.config, SECTION)(10)
    smaller.load_state_dict(dict(section(ingredients)))
    return smaller.eval(), ingredients.log


def states(model, digits):
    """Tokens before the first block and after each, [images, n, width]."""
    images = next(digits.first(16).batches(16)).images
    tokens = [model._pos_embed(model.patch_embed(images)).double()]
    for block in model.blocks:
        tokens.append(block(tokens[-1].float()).double())
    return tokens


def test_influence_is_one_minus_the_cosine_of_a_token_before_and_after(model, digits):
    changed = without_branches(model, 1)
    influence = block_influence(DepthPruning(**FEW), changed, digits)
    tokens = states(changed, digits)
    for number, value in enumerate(influence.tolist()):
        first, last = tokens[number : number + 2]
        cosines = (first * last).sum(-1) / first.norm(dim=-1) / last.norm(dim=-1)
        assert value == pytest.approx(1 - cosines.mean().item(), abs=1e-6)
    assert influence[1].abs() < 1e-12
    assert influence[[0, 2, 3]].min() > 1e-3


def test_angles_are_those_of_the_class_token_over_several_blocks(model, digits):
    turns = angular_distances(DepthPruning(remove=2, **FEW), model, digits)
    tokens = states(model, digits)
    assert len(turns) == 3
    for start, value in enumerate(turns.tolist()):
        first, last = (tokens[number][:, 0] for number in (start, start + 2))
        cosines = (first * last).sum(-1) / first.norm(dim=-1) / last.norm(dim=-1)
        assert value == pytest.approx((cosines.acos() / math.pi).mean().item(), abs=1e-6)


@pytest.mark.parametrize("distance", ["influence", "angular"])
def test_blocks_that_do_nothing_go_and_the_function_stays(model, digits, distance):
    changed = without_branches(model, 1, 2)
    smaller, log = pruned(changed, digits, remove=2, distance=distance)
    images = torch.randn(4, 1, 8, 8)
    torch.testing.assert_close(smaller(images), changed(images), rtol=1e-5, atol=1e-5)
    assert log.lines[-1] == "left out: blocks 1, 2"


def test_without_a_block_a_model_computes_what_it_did_with_empty_branches(model, digits):
    smaller, log = pruned(model, digits, distance="random", seed=3)
    number = int(log.lines[-1].removeprefix("left out: blocks "))
    images = torch.randn(4, 1, 8, 8)
    expected = without_branches(model, number)(images)
    torch.testing.assert_close(smaller(images), expected, rtol=1e-4, atol=1e-4)
    removed = {pruned(model, digits, distance="random", seed=s)[1].lines[-1] for s in range(8)}
    assert len(removed) > 1


def test_a_block_at_least_is_left():
    section = choose("operator", "depth_pruning", remove=4)
    with pytest.raises(IncompatibleWeights, match="it has 4 blocks; give a smaller number"):
        section.plugin.facts["architecture"](section.config, SECTION)
    with pytest.raises(IncompatibleWeights, match="depth_pruning needs a plain vit, not evit"):
        section.plugin.facts["architecture"](section.config, choose("architecture", "evit"))
