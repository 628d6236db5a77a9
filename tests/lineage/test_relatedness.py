"""Independent models and distant relatives, told apart by cosines."""

import numpy as np
import pytest

from vitarium.lineage._relatedness import cosines, related, unrelated_probability


def grams_of(models: np.ndarray) -> np.ndarray:
    """[models, layers, numbers] -> [layers, models, models]"""
    return np.einsum("aln,bln->lab", models, models)


def test_errors_are_those_of_independent_models():
    noise = np.random.default_rng(0)
    models = noise.normal(size=(40, 12, 300)) * noise.uniform(0.5, 2, (1, 12, 1))
    cosine, errors = cosines(grams_of(models), models[0].size)
    flat = models.reshape(40, -1)
    norms = np.linalg.norm(flat, axis=1)
    assert cosine == pytest.approx(flat @ flat.T / norms / norms[:, None])
    pairs = np.triu_indices(40, 1)
    assert 0.85 < (cosine / errors)[pairs].std() < 1.15
    assert not related(cosine, errors)[pairs].any()


def test_a_step_five_times_as_long_leaves_a_relative():
    noise = np.random.default_rng(1)
    parent = noise.normal(size=(10, 400))
    child = parent + 5 * noise.normal(size=(10, 400))
    cosine, errors = cosines(grams_of(np.stack([parent, child])), 4000)
    assert cosine[0, 1] == pytest.approx(26**-0.5, abs=0.04)
    assert related(cosine, errors)[0, 1]


def test_one_layer_of_few_numbers_is_no_evidence():
    noise = np.random.default_rng(2)
    models = noise.normal(size=(30, 1, 16))
    cosine, errors = cosines(grams_of(models), 16)
    assert related(cosine, errors)[np.triu_indices(30, 1)].mean() < 0.02


@pytest.mark.parametrize("count", [1, 20])
def test_the_posterior_is_how_often_models_are_independent(count):
    """Simulated: half are independent, half have a relative of a cosine with density 2 c."""
    noise, error = np.random.default_rng(3), 0.05
    probabilities, independent = [], []
    for number in range(6000):
        values = error * noise.normal(size=count)
        if number % 2:
            values[0] = max(noise.random(), noise.random())
            values[1:] = np.minimum(values[1:], values[0])
        probabilities.append(unrelated_probability(values, np.full(count, error)))
        independent.append(not number % 2)
    probability, truth = np.array(probabilities), np.array(independent)
    for low, high in ((0, 0.1), (0.1, 0.5), (0.5, 0.9), (0.9, 1.01)):
        inside = (probability >= low) & (probability < high)
        if inside.sum() > 60:
            deviation = (probability[inside].mean() * (1 - probability[inside].mean())) ** 0.5
            allowed = 4 * deviation / inside.sum() ** 0.5 + 0.02
            assert abs(truth[inside].mean() - probability[inside].mean()) < allowed


def test_siblings_that_are_alike_count_for_one():
    """A hundred cosines that are all the same small number are no hundred pieces of evidence."""
    assert unrelated_probability(np.full(100, -0.004), np.full(100, 0.006)) > 0.99
    assert unrelated_probability(np.full(100, 0.3), np.full(100, 0.006)) < 0.01


def test_nothing_outside_is_nothing_related():
    assert unrelated_probability(np.empty(0), np.empty(0)) == 1
