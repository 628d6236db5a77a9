"""The trace of the Hessian, estimated."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from vitarium.core.config import InvalidConfig
from vitarium.core.errors import NotApplicable
from vitarium.core.registry import choose
from vitarium.measures.landscape.hessian_trace import HessianTrace


def test_hutchinson_comes_near_the_closed_form(linear, softmax_regression):
    diagonal = softmax_regression.hessian(linear).diagonal()
    measure = choose("measure", "hessian_trace", probes=60, num_images=359, batch_size=359)
    values = measure(linear)
    assert values[""] == pytest.approx(diagonal.sum().item(), abs=4 * values["standard_error"])
    assert values["standard_error"] < 0.05 * values[""]
    assert values["1.weight"] == pytest.approx(diagonal[:640].sum().item(), rel=0.1)
    assert values["1.weight"] + values["1.bias"] == pytest.approx(values[""])
    assert values["per_parameter"] == pytest.approx(values[""] / 650)


class Scaled(nn.Module):
    """Ten of the pixels, times the only parameter, are the classes' logits."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, images):
        return self.scale * images.flatten(1)[:, 20:30]


def test_probes_are_signs_so_that_one_is_enough_for_one_parameter(linear):
    """Its second derivative is the pixels' variance under the model's probabilities."""
    subject = replace(linear, model=Scaled().eval())
    batch = next(subject.examples.batches(359))
    pixels = batch.images.flatten(1)[:, 20:30].double()
    p = (0.5 * pixels).softmax(1)
    exact = ((p * pixels**2).sum(1) - (p * pixels).sum(1) ** 2).mean().item()
    measure = choose("measure", "hessian_trace", probes=1, num_images=359)
    assert measure(subject) == pytest.approx(dict.fromkeys(["", "per_parameter", "scale"], exact))


def test_hutch_plus_plus_is_exact_where_few_directions_are_curved(linear, softmax_regression):
    few = replace(linear, examples=linear.examples.first(2))
    exact = softmax_regression.hessian(few).trace().item()
    measure = choose("measure", "hessian_trace", estimator="hutch++", probes=60, num_images=2)
    assert measure(linear) == {
        "": pytest.approx(exact, rel=1e-4),
        "per_parameter": pytest.approx(exact / 650, rel=1e-4),
    }


def test_both_estimators_agree_on_a_vit(subject):
    common = {"num_images": 60, "batch_size": 60}
    rough = choose("measure", "hessian_trace", probes=30, **common)(subject)
    exact = choose("measure", "hessian_trace", probes=30, estimator="hutch++", **common)(subject)
    assert rough[""] == pytest.approx(exact[""], abs=4 * rough["standard_error"])


def test_the_seed_draws_the_probes(linear):
    values = [
        choose("measure", "hessian_trace", probes=1, num_images=20, seed=seed)(linear)[""]
        for seed in (0, 0, 1)
    ]
    assert values[0] == values[1] != values[2]


def test_one_probe_has_no_standard_error(linear):
    values = choose("measure", "hessian_trace", probes=1, num_images=20)(linear)
    assert "standard_error" not in values


def test_hutch_plus_plus_takes_its_probes_in_thirds_and_fewer_than_parameters(linear):
    with pytest.raises(InvalidConfig, match="probes 10 is no multiple of 3"):
        HessianTrace.read({"estimator": "hutch++", "probes": 10})
    measure = choose("measure", "hessian_trace", estimator="hutch++", probes=651)
    with pytest.raises(NotApplicable, match="cccccccccccc@1 has 650 parameters"):
        measure(linear)
