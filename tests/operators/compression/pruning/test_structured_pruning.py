"""Structured pruning of trained models: what is cut out, and which model it becomes."""

from copy import deepcopy

import pytest
import torch
from torch.nn import functional as F

from vitarium.architectures.symmetries.vit import vit_symmetries
from vitarium.core.errors import IncompatibleWeights
from vitarium.core.registry import choose
from vitarium.evaluation.inputs import EvalModel, Weights
from vitarium.operators.base import Ingredients
from vitarium.operators.compression.pruning._saliency import Saliency, unit_scores

SIZES = {"img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 16, "depth": 1, "num_heads": 2}
SECTION = choose("architecture", "vit", **SIZES)
GROUPS = ("blocks.0.attn.heads", "blocks.0.attn.qk", "blocks.0.attn.vo", "blocks.0.mlp")


def scores(model, digits, groups=GROUPS, **settings):
    config = Saliency(num_images=32, batch_size=16, **settings)
    return unit_scores(config, EvalModel("m", model, digits), vit_symmetries(model), groups)


def pruned(model, digits, **settings):
    ingredients = Ingredients(
        [Weights("m", model.state_dict(), skeleton=lambda: model)],
        subject=lambda number: EvalModel("m", deepcopy(model), digits),
    )
    section = choose("operator", "structured_pruning", num_images=32, batch_size=16, **settings)
    smaller = section.plugin.facts["architecture"](section.config, SECTION)(10)
    smaller.load_state_dict(dict(section(ingredients)))
    return smaller.eval()


def test_saliency_is_the_squared_sum_of_weight_times_gradient(vit, digits):
    model = deepcopy(vit).requires_grad_(True)
    squared = torch.zeros(64, dtype=torch.float64)
    for batch in digits.first(32).batches(16):
        model.zero_grad()
        F.cross_entropy(model(batch.images), batch.labels).backward()
        fc1 = model.blocks[0].mlp.fc1
        sums = (fc1.weight * fc1.weight.grad).sum(1) + fc1.bias * fc1.bias.grad
        squared += sums.detach().double().square() / 2
    torch.testing.assert_close(scores(vit, digits)["blocks.0.mlp"], squared, rtol=1e-4, atol=1e-10)


def test_saliency_does_not_depend_on_the_scale_between_values_and_projection(vit, digits):
    before, changed = scores(vit, digits), deepcopy(vit)
    attention = changed.blocks[0].attn
    rows, columns = slice(32 + 8, 48), slice(8, 16)  # values of the second head
    attention.qkv.weight[rows] *= 4
    attention.qkv.bias[rows] *= 4
    attention.proj.weight[:, columns] /= 4
    after = scores(changed, digits)
    for group in GROUPS:
        torch.testing.assert_close(after[group], before[group], rtol=1e-3, atol=1e-9)


def test_saliency_of_a_unit_without_weights_is_zero_and_moves_with_its_head(vit, digits):
    changed = deepcopy(vit)
    changed.blocks[0].mlp.fc1.weight[7] = 0
    changed.blocks[0].mlp.fc1.bias[7] = 0
    assert scores(changed, digits)["blocks.0.mlp"][7] == 0
    swapped, attention = deepcopy(vit), vit.blocks[0].attn
    order = torch.cat([torch.arange(8, 16), torch.arange(8)])
    of_qkv = torch.cat([order + 16 * part for part in range(3)])
    swapped.blocks[0].attn.qkv.weight.copy_(attention.qkv.weight[of_qkv])
    swapped.blocks[0].attn.qkv.bias.copy_(attention.qkv.bias[of_qkv])
    swapped.blocks[0].attn.proj.weight.copy_(attention.proj.weight[:, order])
    heads = scores(vit, digits)["blocks.0.attn.heads"]
    moved = scores(swapped, digits)["blocks.0.attn.heads"]
    torch.testing.assert_close(moved, heads.flip(0), rtol=1e-3, atol=1e-9)


def test_movement_is_minus_weight_times_gradient_summed_over_steps(vit, digits):
    model = deepcopy(vit).requires_grad_(True)
    summed = torch.zeros(64, dtype=torch.float64)
    for batch in digits.first(32).batches(16):
        model.zero_grad()
        F.cross_entropy(model(batch.images), batch.labels).backward()
        fc1 = model.blocks[0].mlp.fc1
        products = (fc1.weight * fc1.weight.grad).sum(1) + fc1.bias * fc1.bias.grad
        summed -= products.detach().double() / 2
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.1 * parameter.grad
    movement = scores(vit, digits, importance="movement", movement_lr=0.1)["blocks.0.mlp"]
    torch.testing.assert_close(movement, summed, rtol=1e-3, atol=1e-8)
    assert (movement < 0).any()


def test_magnitude_is_the_sum_of_squares_and_a_random_choice_depends_on_its_seed(vit, digits):
    fc1 = vit.blocks[0].mlp.fc1
    expected = fc1.weight.double().square().sum(1) + fc1.bias.double().square()
    magnitudes = scores(vit, digits, importance="magnitude")["blocks.0.mlp"]
    torch.testing.assert_close(magnitudes, expected, rtol=1e-6, atol=0)
    first, second = (
        scores(vit, digits, importance="random", seed=seed)["blocks.0.mlp"] for seed in (0, 1)
    )
    assert not torch.equal(first, second)
    assert torch.equal(first, scores(vit, digits, importance="random")["blocks.0.mlp"])


def test_what_stays_is_the_most_important_and_serves_better_than_chance(vit, digits):
    batch = next(digits.first(400).batches(400))

    def loss(**settings):
        smaller = pruned(vit, digits, head_density=1.0, mlp_density=0.25, **settings)
        with torch.no_grad():
            return F.cross_entropy(smaller(batch.images), batch.labels).item()

    random = [loss(importance="random", seed=seed) for seed in range(5)]
    assert loss(importance="taylor") < sum(random) / 5
    smaller = pruned(vit, digits, head_density=1.0, mlp_density=0.25)
    best = scores(vit, digits)["blocks.0.mlp"].argsort(descending=True)[:16].sort().values
    assert torch.equal(smaller.blocks[0].mlp.fc1.weight, vit.blocks[0].mlp.fc1.weight[best])


def test_half_of_heads_and_hidden_units_are_half_of_the_blocks_matrices(vit, digits):
    smaller = pruned(vit, digits)
    block = smaller.blocks[0]
    assert (block.attn.num_heads, block.attn.head_dim, block.mlp.fc1.out_features) == (1, 8, 32)

    def entries(model):
        return sum(p.numel() for p in model.blocks[0].parameters() if p.ndim == 2)

    assert 2 * entries(smaller) == entries(vit)


@pytest.mark.parametrize(
    ("architecture", "settings", "fault"),
    [
        ({"name": "dinov2"}, {}, "structured_pruning needs a plain vit, not dinov2"),
        ({**SIZES, "attention": "qk_norm"}, {}, "a vit without attention 'qk_norm'"),
        ({**SIZES, "init_values": 1e-5}, {}, "without layer scales"),
        (SIZES, {"head_density": 1, "mlp_density": 1}, "2 heads and 64 hidden units would all"),
    ],
)
def test_what_cannot_be_pruned_is_refused_by_name(architecture, settings, fault):
    chosen = choose(
        "architecture",
        architecture.get("name", "vit"),
        **{name: value for name, value in architecture.items() if name != "name"},
    )
    section = choose("operator", "structured_pruning", **settings)
    with pytest.raises(IncompatibleWeights, match=fault):
        section.plugin.facts["architecture"](section.config, chosen)
