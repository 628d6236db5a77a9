"""Task arithmetic."""

import pytest
import torch

from vitarium.core.errors import InvalidInput


def test_adds_a_multiple_of_the_sum_of_task_vectors(merged, random_models, taus, compare):
    base, models = random_models(4)
    compare(merged("task_arithmetic", base, models), base, 0.3 * taus(base, models).sum(0))
    found = merged("task_arithmetic", base, models, scaling_factor=-0.5)
    compare(found, base, -0.5 * taus(base, models).sum(0))


def test_weights_say_how_much_a_model_counts(merged, random_models, taus, compare):
    base, models = random_models(3)
    given = {"model0": 2.0, "model2": -1.0}
    tau = (taus(base, models) * [[2], [1], [-1]]).sum(0)
    compare(merged("task_arithmetic", base, models, weights=given, scaling_factor=1), base, tau)
    mean = merged(
        "task_arithmetic", base, models, weights=given, scaling_factor=1, combination_type="mean"
    )
    compare(mean, base, tau / 2)


def test_gives_mergekits_numbers(merged, mergekit):
    found = merged(
        "task_arithmetic",
        mergekit.base,
        mergekit.models,
        scaling_factor=0.4,
        weights=mergekit.weights,
    )
    for name, tensor in mergekit.made["task_arithmetic"].items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    "settings", [{"combination_type": "mean", "scaling_factor": 1.0}, {"scaling_factor": 0.25}]
)
def test_copies_of_a_model_give_it_where_they_add_up_to_one(settings, merged, random_models):
    base, models = random_models(1)
    copies = {f"copy{number}": models["model0"] for number in range(4)}
    found = merged("task_arithmetic", base, copies, **settings)
    assert all(torch.equal(found[n].float(), t) for n, t in models["model0"].items())


def test_copies_of_a_model_are_added_up(merged, random_models, taus, compare):
    base, models = random_models(1)
    copies = {"one": models["model0"], "two": models["model0"]}
    found = merged("task_arithmetic", base, copies, scaling_factor=1)
    compare(found, base, 2 * taus(base, models)[0])


def test_weights_that_add_up_to_zero_have_no_mean(merged, random_models):
    base, models = random_models(2)
    with pytest.raises(InvalidInput, match="weights add up to 0: there is no mean"):
        merged("task_arithmetic", base, models, weights={"model0": -1.0}, combination_type="mean")
