"""Low-rank factors: errors that singular values give in advance, beside the measured ones."""

from copy import deepcopy

import numpy as np
import pytest
import torch

from vitarium.core.config import InvalidConfig
from vitarium.core.errors import IncompatibleWeights
from vitarium.core.registry import choose
from vitarium.evaluation.inputs import EvalModel, Weights
from vitarium.operators.base import Ingredients
from vitarium.operators.compression.low_rank import whitened_factors

SIZES = {"img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 16, "depth": 1, "num_heads": 2}
SECTION = choose("architecture", "vit", **SIZES)


def correlated(seed=0, rows=9, inputs=6, samples=50):
    noise = np.random.default_rng(seed)
    x = noise.normal(size=(samples, inputs)) @ noise.normal(size=(inputs, inputs))
    return torch.tensor(noise.normal(size=(rows, inputs))), torch.tensor(x)


def truncated(weight, rank):
    u, values, v = torch.linalg.svd(weight, full_matrices=False)
    return u[:, :rank] * values[:rank] @ v[:rank]


@pytest.mark.parametrize("rank", [1, 2, 4, 6])
def test_the_whitened_error_is_that_of_the_singular_values_and_below_plain_svds(rank):
    weight, x = correlated()
    core_out, core_in, left_out, total = whitened_factors(weight, x.T @ x / len(x), rank)
    assert (core_out.shape, core_in.shape) == ((9, rank), (rank, 6))
    missed = (x @ (weight - core_out @ core_in).T).square().sum() / len(x)
    assert left_out == pytest.approx(missed.item(), rel=1e-9, abs=1e-20)
    assert total == pytest.approx((x @ weight.T).square().sum().item() / len(x))
    plain = (x @ (weight - truncated(weight, rank)).T).square().sum().item() / len(x)
    assert left_out < 0.9 * plain if rank < 6 else left_out < 1e-20


def test_no_matrix_of_that_rank_has_outputs_that_are_nearer():
    """Alternating least squares from random starts reaches the same error, and no lower one."""
    weight, x = correlated()
    left_out, target = whitened_factors(weight, x.T @ x, 2)[2], (x @ weight.T).numpy()
    noise = np.random.default_rng(1)
    reached = []
    for _ in range(3):
        core_in = noise.normal(size=(2, 6))
        for _ in range(300):
            core_out = np.linalg.lstsq(x.numpy() @ core_in.T, target, rcond=None)[0].T
            outputs = np.linalg.lstsq(core_out, target.T, rcond=None)[0].T
            core_in = np.linalg.lstsq(x.numpy(), outputs, rcond=None)[0].T
        reached.append(((x.numpy() @ core_in.T @ core_out.T - target) ** 2).sum())
    assert min(reached) == pytest.approx(left_out, rel=1e-6)


def test_with_uncorrelated_inputs_of_one_norm_it_is_plain_svd():
    weight, _ = correlated()
    core_out, core_in, *_ = whitened_factors(weight, torch.eye(6).double(), 3)
    torch.testing.assert_close(core_out @ core_in, truncated(weight, 3))


def test_inputs_in_a_plane_bound_the_error_from_above():
    """As those after a LayerNorm without bias are: their Gram matrix is singular."""
    weight, x = correlated()
    x = x - x.mean(1, keepdim=True)
    core_out, core_in, left_out, _ = whitened_factors(weight, x.T @ x / len(x), 3)
    missed = (x @ (weight - core_out @ core_in).T).square().sum().item() / len(x)
    assert torch.isfinite(core_in).all()
    assert missed <= left_out * (1 + 1e-9)
    assert missed == pytest.approx(left_out, rel=1e-3)


def factored(model, digits, operator, **settings):
    ingredients = Ingredients(
        [Weights("m", model.state_dict(), skeleton=lambda: model)],
        subject=lambda number: EvalModel("m", deepcopy(model), digits),
    )
    section = choose("operator", operator, **settings)
    smaller = section.plugin.facts["architecture"](section.config, SECTION)(10)
    smaller.load_state_dict(dict(section(ingredients)))
    return smaller.eval(), ingredients.log


def test_ranks_are_those_of_the_share_of_parameters(vit, digits):
    smaller, _ = factored(vit, digits, "svd", parameter_ratio=0.5)
    block = smaller.blocks[0]
    ranks = [block.attn.qkv.q.rank, block.attn.proj.rank, block.mlp.fc1.rank, block.mlp.fc2.rank]
    assert ranks == [int(256 * 0.5 / 32), 4, int(16 * 64 * 0.5 / 80), 6]
    for layer, dense in ((block.attn.proj, 256), (block.mlp.fc1, 1024)):
        entries = layer.core_in.numel() + layer.core_out.numel()
        assert entries <= 0.5 * dense < entries + layer.in_features + layer.out_features


@pytest.mark.parametrize("operator", ["svd", "whitened_svd"])
def test_with_the_full_rank_a_model_stays_what_it_is(vit, digits, operator):
    smaller, log = factored(vit, digits, operator, rank=16)
    images = next(digits.first(32).batches(32)).images
    with torch.no_grad():
        torch.testing.assert_close(smaller(images), vit(images), rtol=1e-4, atol=1e-4)
    assert log.metrics["relative_error"] < 1e-3


def test_the_logged_error_is_that_of_the_layers_outputs_on_the_images(vit, digits):
    inputs = {}
    model = deepcopy(vit)
    for name in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"):
        model.blocks[0].get_submodule(name).register_forward_pre_hook(
            lambda _, arguments, name=name: inputs.update({name: arguments[0].flatten(0, 1)})
        )
    model(next(digits.first(64).batches(64)).images)
    errors = {}
    for operator, settings in (("svd", {}), ("whitened_svd", {"num_images": 64})):
        smaller, log = factored(vit, digits, operator, rank=5, **settings)
        missed = total = 0.0
        for name, x in inputs.items():
            dense, layer = vit.blocks[0].get_submodule(name), smaller.blocks[0].get_submodule(name)
            parts = [layer.q, layer.k, layer.v] if name == "attn.qkv" else [layer]
            matrix = torch.cat(
                [p.matrix({n: getattr(p, n) for n in p.factor_names}) for p in parts]
            )
            missed += (x.double() @ (matrix - dense.weight.double()).T).square().sum() / len(x)
            total += (x.double() @ dense.weight.double().T).square().sum() / len(x)
        errors[operator] = (missed / total).sqrt().item()
    assert log.metrics["relative_error"] == pytest.approx(errors["whitened_svd"], rel=1e-3)
    assert errors["whitened_svd"] < 0.9 * errors["svd"]


def test_what_cannot_be_factored_is_refused(vit):
    def architecture(operator, chosen, **settings):
        section = choose("operator", operator, **settings)
        return section.plugin.facts["architecture"](section.config, chosen)

    with pytest.raises(InvalidConfig, match="say the same; leave one of them out"):
        choose("operator", "svd", rank=3, parameter_ratio=0.5)
    with pytest.raises(IncompatibleWeights, match="rank 17 is more than 16"):
        architecture("svd", SECTION, rank=17)
    low_rank = architecture("svd", SECTION, rank=4)
    with pytest.raises(IncompatibleWeights, match="whitened_svd needs a plain vit, not structured"):
        architecture("whitened_svd", low_rank)
    assert architecture("svd", low_rank, rank=2).config.rank == 2
    with pytest.raises(InvalidConfig, match="parameter_ratio is of low_rank"):
        choose("architecture", "structured_vit", structure="btt", parameter_ratio=0.5)
