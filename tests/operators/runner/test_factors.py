"""Merging models whose layers have factors: their matrices are combined."""

import pytest
import torch

from vitarium import Blueprint, create_model, grow, merge
from vitarium.core.errors import IncompatibleWeights
from vitarium.evaluation.inputs import Weights
from vitarium.operators._runner.factors import MatrixWeights, factorized_layers, nearest_factors
from vitarium.operators.base import OperatorLog

SIZES = {"img_size": 8, "patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2}


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """Two models of low rank of two epochs, from different seeds."""
    stage = {
        "architecture": {
            "name": "structured_vit",
            "structure": "low_rank",
            "normalize_cores": True,
            "in_chans": 1,
            **SIZES,
        },
        "data": {"name": "digits", "train_limit": 64},
        "optimizer": {"name": "adamw", "lr": 0.01},
        "epochs": 2,
        "batch_size": 32,
        "grid": {"seed": [1, 2]},
    }
    blueprint = Blueprint.read({"name": "low-rank", "stages": {"pretrain": stage}})
    folder = tmp_path_factory.mktemp("structured") / "zoo"
    return grow(blueprint, folder, workers=0, progress=False).zoo


@pytest.fixture
def pair(zoo):
    """Ids of the trained models."""
    return [id for id in zoo.ids() if not zoo.spec(id).operator]


def matrices(model):
    """By layer, float64 [out, in]."""
    weights = Weights("m", model.state_dict(), skeleton=lambda: model)
    seen = MatrixWeights(weights, factorized_layers(weights))
    return {name: seen[name] for name in seen if name.endswith(("proj.weight", "fc1.weight"))}


def test_a_soup_has_the_nearest_matrices_to_the_mean_of_matrices(zoo, pair):
    first, second = (matrices(zoo.load(id)) for id in pair)
    soup = merge(zoo, "uniform_soup", models=pair)
    assert soup.spec.origin.architecture.name == "structured_vit"
    merged = matrices(soup.load())
    for name in ("blocks.0.attn.proj.weight", "blocks.0.mlp.fc1.weight"):
        mean, rank = (first[name] + second[name]) / 2, 4
        u, values, v = torch.linalg.svd(mean, full_matrices=False)
        assert values[rank] > 0.01 * values[0]  # a mean of two is of no such rank
        nearest = u[:, :rank] * values[:rank] @ v[:rank]
        torch.testing.assert_close(merged[name], nearest, rtol=0, atol=1e-5)
    biases = [zoo.state_dict(id)["blocks.0.mlp.fc1.bias"] for id in (*pair, soup.id)]
    torch.testing.assert_close(biases[2], (biases[0] + biases[1]) / 2)
    assert 0.01 < soup.metrics["relative_error"].item() < 1


def test_the_end_of_a_line_is_the_model_with_whatever_factors(zoo, pair):
    end = merge(zoo, "interpolation", models=pair, t=1.0)
    images = torch.randn(3, 1, 8, 8)
    with torch.no_grad():
        expected = zoo.load(pair[1]).eval()(images)
        torch.testing.assert_close(end.load().eval()(images), expected, rtol=0, atol=1e-5)
    assert end.metrics["relative_error"].item() < 1e-5


def test_task_vectors_are_of_matrices_too(zoo, pair):
    """The base's own task vector is zero."""
    base = f"{pair[0]}@1"
    moved = merge(zoo, "task_arithmetic", models=[base, pair[1]], base=base, scaling_factor=1.0)
    expected = matrices(zoo.load(pair[1]))
    torch.testing.assert_close(matrices(moved.load()), expected, rtol=0, atol=1e-5)


def test_methods_that_run_what_they_combine_are_refused_by_name(zoo, pair):
    with pytest.raises(IncompatibleWeights, match=r"greedy_soup runs models .* have factors"):
        merge(zoo, "greedy_soup", models=pair)


def test_alignment_rearranges_the_factors_themselves(zoo, pair):
    aligned = merge(zoo, "weight_matching", models=pair)
    images = torch.randn(3, 1, 8, 8)
    with torch.no_grad():
        expected = zoo.load(pair[1]).eval()(images)
        torch.testing.assert_close(aligned.load().eval()(images), expected, rtol=0, atol=1e-5)
    changed = zoo.state_dict(aligned.id)["blocks.0.mlp.fc1.core_out"]
    assert not torch.equal(changed, zoo.state_dict(pair[1])["blocks.0.mlp.fc1.core_out"])


def test_units_that_no_linear_layer_sees_are_not_aligned_by_activations(zoo, pair):
    with pytest.raises(IncompatibleWeights, match=r"attn\.heads: .*align by weights"):
        merge(zoo, "activation_matching", models=pair)


def test_a_model_without_factors_is_seen_as_it_is():
    model = create_model("vit", **SIZES)
    assert factorized_layers(Weights("m", model.state_dict(), skeleton=lambda: model)) == {}
    assert factorized_layers(Weights("m", {})) == {}


def test_matrices_are_seen_in_the_place_of_factors():
    model = create_model("structured_vit", structure="monarch", structured_layers=["fc1"], **SIZES)
    weights = Weights("m", model.state_dict(), skeleton=lambda: model)
    layers = factorized_layers(weights)
    seen = MatrixWeights(weights, layers)
    plain = create_model("vit", **SIZES)
    shapes = {name: tuple(tensor.shape) for name, tensor in plain.state_dict().items()}
    assert set(seen) == set(seen.shapes) == set(shapes)
    assert seen.shapes == shapes
    name = "blocks.0.mlp.fc1.weight"
    assert seen.dtype(name) == torch.float32
    assert seen[name].dtype == torch.float64
    assert torch.equal(seen.rows(name, 3, 7), seen[name][3:7])
    log = OperatorLog()
    stored = nearest_factors(iter(seen.items()), layers, lambda _, tensor: tensor.float(), log)
    assert {n: t.shape for n, t in stored} == {n: t.shape for n, t in model.state_dict().items()}
    assert log.metrics["relative_error"] < 1e-6
