"""Distances after a random projection are those of the weights, on average and about each time."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist

from vitarium.core.errors import NotApplicable
from vitarium.core.registry import choose
from vitarium.encoders.random_projection import project
from vitarium.evaluation.inputs import Weights

GENERATOR = torch.Generator().manual_seed(0)


def weights(scale=1.0):
    shapes = {"matrix": (30, 20), "bias": (20,), "kernel": (8, 3, 2, 2)}
    tensors = {n: torch.randn(*s, generator=GENERATOR) * scale for n, s in shapes.items()}
    return Weights("model", {**tensors, "index": torch.arange(3)})


def flat(model):
    return torch.cat([tensor.double().flatten() for _, tensor in model.floats()])


def test_squared_distances_are_right_on_average_with_the_variance_of_the_theory():
    x = torch.randn(60, generator=GENERATOR, dtype=torch.float64)
    squared, fourth, dim, seeds = float(x.square().sum()), float((x**4).sum()), 16, 4000
    lengths = [float(project(x, "x", dim=dim, seed=seed).square().sum()) for seed in range(seeds)]
    variance = 2 / dim * (squared**2 - fourth)  # over pairs of entries that meet
    error = np.sqrt(variance / seeds)
    assert np.mean(lengths) == pytest.approx(squared, abs=4 * error)
    assert np.var(lengths) == pytest.approx(variance, rel=0.15)


def test_distances_of_models_are_right_to_what_the_settings_say():
    models = [weights(scale) for scale in (1, 1, 0.5, 2, 0.1, 3, 1, 1.5)]
    exact = pdist(torch.stack([flat(model) for model in models]).numpy())
    for dim in (256, 4096):
        encoder = choose("weight_encoder", "random_projection", dim=dim)
        vectors = torch.stack([encoder(model) for model in models])
        assert vectors.shape == (len(models), dim)
        error = pdist(vectors.numpy()) / exact - 1
        assert np.sqrt((error**2).mean()) < 2 / np.sqrt(2 * dim)  # pairs have models in common


def test_it_is_linear_and_of_each_tensor_by_its_name_and_shape():
    x, y = torch.randn(2, 40, 3, generator=GENERATOR, dtype=torch.float64)
    projected = [project(each, "a", dim=8) for each in (x, y, 2 * x - y)]
    assert torch.allclose(projected[2], 2 * projected[0] - projected[1])
    assert not torch.allclose(projected[0], project(x, "b", dim=8))
    assert not torch.allclose(projected[0], project(x.flatten(), "a", dim=8))
    assert not torch.allclose(projected[0], project(x, "a", dim=8, seed=1))


def test_other_architectures_have_vectors_of_the_same_length_and_lack_tensors_as_zeros():
    encoder = choose("weight_encoder", "random_projection", dim=64)
    model = weights()
    with_zeros = Weights("larger", {**model, "another": torch.zeros(5, 5)})
    assert torch.equal(encoder(model), encoder(with_zeros))
    larger = Weights("larger", {**model, "another": torch.ones(5, 5)})
    assert not torch.equal(encoder(model), encoder(larger))


def test_what_has_no_weights_is_refused():
    with pytest.raises(NotApplicable, match="model: its backbone has no weights"):
        choose("weight_encoder", "random_projection")(Weights("model", {}))
