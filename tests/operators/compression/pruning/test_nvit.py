"""NViT: which groups go for what they cost, and the model that is left."""

from copy import copy, deepcopy
from types import SimpleNamespace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from vitarium import merge
from vitarium.core.errors import IncompatibleWeights
from vitarium.core.registry import choose
from vitarium.evaluation.inputs import EvalModel
from vitarium.operators.compression.pruning import _block_cost
from vitarium.operators.compression.pruning._block_cost import (
    block_sizes,
    grid_points,
    interpolated,
    measured,
    multiply_adds,
)
from vitarium.operators.compression.pruning._structures import Sizes
from vitarium.operators.compression.pruning.nvit import Nvit, cheaper, searched
from vitarium.testing._tiny_zoo import tiny_zoo

SIZES = {"img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 16, "depth": 1, "num_heads": 2}
SECTION = choose("architecture", "vit", **SIZES)
ORIGINAL = Sizes(32, 16, (4, 4), (16, 16), (16, 16), (64, 64))
HIDDEN = ("blocks.0.mlp", "blocks.1.mlp")


def scores(groups, seed=0):
    generator = torch.Generator().manual_seed(seed)
    sizes = ORIGINAL.groups()
    return {g: torch.rand(sizes[g], generator=generator, dtype=torch.float64) for g in groups}


def cost(sizes, tokens=5):
    return sum(map(multiply_adds(tokens), block_sizes(sizes)))


def test_multiply_adds_are_those_of_a_block():
    chosen = {"heads": (3,), "qk_dims": (5,), "v_dims": (7,), "hidden": (11,)}
    model = choose("architecture", "uneven_vit", **SIZES, head_dim=8, **chosen)(3)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.blocks[0](torch.randn(1, 5, 16))
    counted = sum(map(multiply_adds(5), block_sizes(Sizes.of(model))))
    assert 2 * 5 * counted == counter.get_total_flops()


def test_between_measured_sizes_the_cost_is_multilinear():
    points = [[2, 4], [1, 3], [8], [8], [16, 32]]
    values = {
        (a, b, 8, 8, c): 1 + 2 * a + b * c + 0.5 * a * b * c
        for a in points[0]
        for b in points[1]
        for c in points[4]
    }
    block_cost = interpolated(points, values)
    for a, b, c in ((2, 1, 16), (3, 2, 20), (4, 3, 31), (3, 1, 32)):
        assert block_cost((a, b, 8, 8, c)) == pytest.approx(1 + 2 * a + b * c + 0.5 * a * b * c)
    assert interpolated([[4], [3], [8], [8], [16]], {(4, 3, 8, 8, 16): 7.0})((4, 3, 8, 8, 16)) == 7


def test_the_published_table_gives_what_lies_between_its_values():
    """Seconds of a block of DeiT-B with 1, 768, 1536, 2304 and 3072 hidden units."""
    points = [[768], [12], [64], [64], [1, 768, 1536, 2304, 3072]]
    seconds = (0.0447, 0.0530, 0.0623, 0.0716, 0.0808)
    table = {(768, 12, 64, 64, n): s for n, s in zip(points[4], seconds, strict=True)}
    block_cost = interpolated(points, table)
    assert block_cost((768, 12, 64, 64, 1152)) == pytest.approx((0.0530 + 0.0623) / 2)
    assert 12 * block_cost((768, 12, 64, 64, 3072)) == pytest.approx(0.970, abs=1e-3)


def test_blocks_of_every_size_are_run_and_timed(monkeypatch):
    runs = []

    def noted(block, inputs):
        block(inputs)
        runs.append((tuple(inputs.shape), block.attn.num_heads, block.mlp.fc1.out_features))
        return float(len(runs))

    monkeypatch.setattr(_block_cost, "_time", noted)
    points = grid_points(Sizes.of_section(SECTION), ("embed_dim", "heads", "hidden"))
    assert points == [[1, 8, 16], [1, 2], [8], [8], [1, 32, 64]]
    table = measured(SECTION, points, batch_size=3, device="cpu")
    assert len(table) == len(runs) == 18
    assert table[16, 2, 8, 8, 64] == 18.0
    assert runs[-1] == ((3, 5, 16), 2, 64)


@pytest.mark.parametrize("target", [0.9, 0.6, 0.3])
def test_groups_go_until_the_target_is_reached_and_one_of_each_structure_stays(target):
    sizes = cheaper(Nvit(target=target), ORIGINAL, scores(ORIGINAL.groups()), multiply_adds(5))
    assert cost(sizes) <= target * cost(ORIGINAL)
    assert sizes.embed_dim in (8, 16, 24, 32)
    assert {*sizes.heads} <= {1, 2, 3, 4}
    assert {*sizes.qk_dims, *sizes.v_dims} <= {4, 8, 12, 16}
    assert {*sizes.hidden} <= {16, 32, 48, 64}


def test_without_a_weight_of_the_cost_the_groups_of_least_saliency_go():
    saliency = scores(HIDDEN)
    config = Nvit(target=0.85, cost_weight=0, structures=["hidden"])
    sizes = cheaper(config, ORIGINAL, saliency, multiply_adds(5))
    sums = {
        (float(part.sum()), block)
        for block, group in enumerate(HIDDEN)
        for part in saliency[group].sort().values.split(16)[:-1]
    }
    removed = (128 - sum(sizes.hidden)) // 16
    least = [block for _, block in sorted(sums)[:removed]]
    assert sizes.hidden == tuple(64 - 16 * least.count(block) for block in (0, 1))
    assert cost(sizes) <= 0.85 * cost(ORIGINAL) < cost(sizes) + 2 * 32 * 16


def test_a_group_of_equal_saliency_goes_first_where_it_saves_more():
    saliency = {group: torch.ones(64).double() for group in HIDDEN}

    def block_cost(sizes):
        return {64: 10.0}.get(sizes[4], 10.0 - (64 - sizes[4]) / 16)

    def dearer(sizes):
        return block_cost(sizes) * (3 if sizes[1] == 2 else 1)

    uneven = ORIGINAL._replace(heads=(4, 2))
    sizes = cheaper(Nvit(target=0.95, structures=["hidden"]), uneven, saliency, dearer)
    assert sizes.hidden == (64, 48)


def test_a_target_out_of_reach_is_refused():
    config = Nvit(target=0.1, structures=["hidden"])
    with pytest.raises(IncompatibleWeights, match=r"target 0.1 is out of reach.*still costs 0.762"):
        cheaper(config, ORIGINAL, scores(HIDDEN), multiply_adds(5))


def subject(model, images):
    return EvalModel("m", deepcopy(model), images, origin=SimpleNamespace(architecture=SECTION))


def test_the_order_of_batches_does_not_change_the_choice(vit, digits):
    config = Nvit(num_images=64, batch_size=16, target=0.6, cost_weight=0)
    examples = digits.first(64)
    reverse = copy(examples)
    reverse.first = lambda count: reverse
    reverse.batches = lambda size: reversed([*examples.batches(size)])
    chosen = [searched(config, subject(vit, images)).sizes for images in (examples, reverse)]
    assert chosen[0] == chosen[1]
    assert searched(Nvit(sizes=chosen[0]), subject(vit, digits)).sizes == chosen[0]


def test_what_is_left_is_a_model_of_the_zoo_that_its_sizes_give_again():
    few = {"num_images": 32, "batch_size": 16}
    with tiny_zoo() as zoo:
        (id, *_) = zoo.ids()
        pruned = merge(zoo, "nvit", models=[id], target=0.7, **few)
        config = pruned.spec.operator.config
        assert config.sizes
        assert pruned.metrics["multiply_adds_left"].item() <= 0.7
        assert [ref.model for ref in pruned.spec.ingredients] == [id]
        model = pruned.load()
        assert Sizes.of(model).remaining() == dict(config.sizes)
        again = merge(zoo, "nvit", models=[id], target=0.7, sizes=config.factors()["sizes"], **few)
        assert again.id == pruned.id
        sizes = {**config.factors()["sizes"], "heads": [9]}
        with pytest.raises(IncompatibleWeights, match=r"heads \[9\] are not within"):
            merge(zoo, "nvit", models=[id], sizes=sizes, **few)
