"""Paths between two models: where they lead, and where there is none."""

from dataclasses import replace
from math import comb

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vitarium.core.config import InvalidConfig
from vitarium.core.errors import NotApplicable
from vitarium.evaluation.inputs import EvalModel
from vitarium.evaluation.losses import Losses
from vitarium.measures.landscape._paths import OnPath, barriers, bezier, check_path


def controls(count):
    generator = torch.Generator().manual_seed(count)
    return [{"w": torch.randn(4, 3, generator=generator)} for _ in range(count)]


@settings(deadline=None, max_examples=20)
@given(t=st.floats(0, 1), count=st.integers(2, 5))
def test_a_curve_is_the_sum_of_bernstein_polynomials(t, count):
    expected = sum(
        comb(count - 1, i) * t**i * (1 - t) ** (count - 1 - i) * control["w"].double()
        for i, control in enumerate(controls(count))
    )
    torch.testing.assert_close(
        bezier(controls(count), t)["w"].double(), expected, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("count", [2, 3, 4])
def test_a_curve_is_exact_at_its_ends_and_where_nothing_changes(count):
    points = controls(count)
    assert torch.equal(bezier(points, 0.0)["w"], points[0]["w"])
    assert torch.equal(bezier(points, 1.0)["w"], points[-1]["w"])
    assert torch.equal(bezier([points[0]] * count, 0.3)["w"], points[0]["w"])


def test_a_barrier_is_the_highest_rise_above_the_line_between_the_ends():
    values = torch.tensor([[1, 4, 2, 5, 3], [0.5, 0.25, 0.125, 0.0, 0.5]], dtype=torch.float64)
    assert barriers(OnPath(points=5).positions, Losses(*values)) == {
        "": 2.5,
        "error": 0.0,
        "midpoint/loss": 0.0,
        "midpoint/error": -0.375,
    }


def test_an_even_number_of_points_has_none_halfway():
    with pytest.raises(InvalidConfig, match="24 is even"):
        OnPath.read({"points": 24})


def test_points_go_from_end_to_end():
    assert OnPath(points=5).positions == [0, 0.25, 0.5, 0.75, 1]


def small(examples, *layers):
    model = nn.Sequential(nn.Flatten(), *layers).eval().requires_grad_(False)
    return EvalModel("dddddddddddd@1", model, examples)


@pytest.mark.parametrize(
    ("layers", "differs"),
    [
        ([nn.Linear(64, 11)], r"differ in '1.weight': \[10, 64\] and \[11, 64\]"),
        ([nn.Linear(64, 10, bias=False)], r"differ in '1.bias': \[10\] and missing"),
        ([nn.Linear(64, 10), nn.Linear(10, 10)], r"'2.weight': missing and \[10, 10\]"),
    ],
)
def test_models_of_other_shapes_are_refused_by_the_first_tensor_that_differs(
    linear, examples, layers, differs
):
    with pytest.raises(NotApplicable, match=f"cccccccccccc@1 and dddddddddddd@1 .*{differs}"):
        check_path(linear, small(examples, *layers))


def test_statistics_that_differ_are_refused(examples):
    one, other = (small(examples, nn.Linear(64, 10), nn.BatchNorm1d(10)) for _ in range(2))
    check_path(one, other)
    other.model[2].running_mean += 1
    with pytest.raises(NotApplicable, match=r"differ in '2\.running_mean', which is no parameter"):
        check_path(one, other)


def test_other_data_and_other_image_sizes_are_refused(linear, examples):
    class Larger:
        dataset, input_size = examples.dataset, (1, 16, 16)

    with pytest.raises(NotApplicable, match=r"different sizes: \(1, 8, 8\) and \(1, 16, 16\)"):
        check_path(linear, replace(linear, examples=Larger()))

    class Foreign:
        dataset, input_size = replace(examples.dataset, name="letters"), (1, 8, 8)

    with pytest.raises(NotApplicable, match="different data: 'digits' and 'letters'"):
        check_path(linear, replace(linear, examples=Foreign()))
