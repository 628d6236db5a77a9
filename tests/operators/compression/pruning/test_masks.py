"""Which weights stay, counted and compared with NumPy."""

import numpy as np
import pytest
import torch

from vitarium.core.config import InvalidConfig
from vitarium.core.errors import IncompatibleWeights
from vitarium.core.registry import choose
from vitarium.evaluation.inputs import Weights
from vitarium.operators.base import Ingredients
from vitarium.operators.compression.pruning._masks import Sparsity
from vitarium.operators.compression.pruning.magnitude_pruning import MagnitudePruning

SIZES = {"img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 12, "depth": 2, "num_heads": 2}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return choose("architecture", "vit", **SIZES)(3)


def pruned(model, **settings):
    ingredients = Ingredients([Weights("m", model.state_dict(), skeleton=lambda: model)])
    return dict(choose("operator", "magnitude_pruning", **settings)(ingredients)), ingredients.log


def matrices(weights):
    return {n: t for n, t in weights.items() if n.startswith("blocks.") and t.ndim == 2}


@pytest.mark.parametrize("density", [0.1, 0.25, 0.5, 0.9, 1.0])
def test_each_row_and_each_matrix_keeps_as_many_as_asked_for(density):
    scores = torch.randint(0, 4, (7, 20), generator=torch.Generator().manual_seed(0)).double()
    sparsity = Sparsity(density=density)
    assert sparsity.mask_rows(scores).sum(1).tolist() == [round(density * 20)] * 7
    mask = sparsity.mask_matrix(scores)
    assert mask.sum() == round(density * 140)
    assert scores[mask].min() >= (scores[~mask].max() if (~mask).any() else 0)


@pytest.mark.parametrize("pattern", ["2:4", "1:4", "4:8", "3:3"])
def test_each_run_of_a_pattern_keeps_its_largest(pattern):
    count, size = map(int, pattern.split(":"))
    scores = torch.rand(5, 24, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for mask in (
        Sparsity(pattern=pattern).mask_rows(scores),
        Sparsity(pattern=pattern).mask_matrix(scores),
    ):
        for row, chosen in zip(scores.numpy(), mask.numpy(), strict=True):
            for start in range(0, 24, size):
                run = slice(start, start + size)
                expected = set(np.argsort(row[run])[size - count :])
                assert set(np.flatnonzero(chosen[run])) == expected


def test_magnitude_pruning_keeps_the_largest_of_each_scope(model):
    original = matrices(model.state_dict())
    for scope in ("layer", "row", "global"):
        sparse, log = pruned(model, density=0.3, scope=scope)
        assert log.metrics["sparsity"] == pytest.approx(0.7, abs=0.04)
        for name, tensor in original.items():
            dropped = sparse[name] == 0
            assert torch.equal(sparse[name][~dropped], tensor[~dropped])
            if scope == "row":
                assert (~dropped).sum(1).tolist() == [round(0.3 * tensor.shape[1])] * len(tensor)
            if scope == "layer":
                assert tensor[dropped].abs().max() <= tensor[~dropped].abs().min()
                assert (~dropped).sum() == round(0.3 * tensor.numel())
    values = torch.cat([tensor.flatten().abs() for tensor in original.values()]).numpy()
    threshold = np.sort(values)[len(values) - round(0.3 * len(values))]
    sparse, _ = pruned(model, density=0.3, scope="global")
    for name, tensor in original.items():
        assert torch.equal(sparse[name] != 0, tensor.abs() >= threshold)


def test_all_but_the_matrices_of_blocks_stays(model):
    sparse, _ = pruned(model, density=0.5)
    for name, tensor in model.state_dict().items():
        assert torch.equal(sparse[name], tensor) == (name not in matrices(model.state_dict()))


def test_a_density_of_one_is_the_model(model):
    same, log = pruned(model, density=1.0)
    assert all(torch.equal(same[name], tensor) for name, tensor in model.state_dict().items())
    assert log.metrics["sparsity"] == 0


def test_a_random_choice_of_as_many_depends_on_the_seed_alone(model):
    first, second, third = (
        matrices(pruned(model, ranking="random", seed=seed)[0]) for seed in (0, 0, 1)
    )
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name])
        assert not torch.equal(tensor, third[name])
        assert (tensor == 0).sum() == tensor.numel() // 2
    largest = matrices(pruned(model)[0])
    assert all(largest[name].norm() > tensor.norm() for name, tensor in first.items())


def test_gaussian_weights_keep_the_share_of_the_squared_sum_that_is_published():
    """2:4 keeps 86.8 % of the squared sum, one half without pattern 92.9 %."""
    weight = torch.randn(500, 2000, generator=torch.Generator().manual_seed(0)).double()
    total = weight.square().sum()
    for settings, share in (({"pattern": "2:4"}, 0.868), ({"density": 0.5}, 0.929)):
        mask = Sparsity(**settings).mask_matrix(weight.abs())
        assert (weight[mask].square().sum() / total).item() == pytest.approx(share, abs=0.001)


def test_a_model_that_is_as_sparse_already_is_refused(model):
    sparse = choose("architecture", "vit", **SIZES)(3)
    sparse.load_state_dict(pruned(model, density=0.5)[0])
    with pytest.raises(IncompatibleWeights, match=r"m is as sparse already.*give a lower density"):
        pruned(sparse, density=0.6)
    assert pruned(sparse, density=0.25)[1].metrics["sparsity"] == pytest.approx(0.75, abs=0.01)


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"density": 0}, "greater than 0"),
        ({"density": 1.5}, "less than or equal to 1"),
        ({"pattern": "2-4"}, "pattern"),
        ({"pattern": "0:4"}, "pattern"),
        ({"pattern": "5:4"}, "no more than M of M weights can stay"),
        ({"pattern": "2:4", "density": 0.5}, "density follows from the pattern 2:4; leave it out"),
        ({"pattern": "2:4", "scope": "global"}, "leave out scope"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, fault):
    with pytest.raises(InvalidConfig, match=fault):
        MagnitudePruning.read(settings)


def test_what_cannot_be_pruned_is_refused_by_name(model):
    with pytest.raises(IncompatibleWeights, match="has 12 inputs, no multiple of the 8 of pattern"):
        pruned(model, pattern="4:8")
    with pytest.raises(IncompatibleWeights, match=r"no transformer blocks.*name a vision transf"):
        pruned(torch.nn.Linear(3, 3))
