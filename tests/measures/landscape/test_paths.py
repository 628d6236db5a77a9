"""Paths between two models: where they lead, and where there is none."""

from copy import deepcopy
from dataclasses import replace
from math import comb

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim.swa_utils import update_bn

from vitarium.core.config import InvalidConfig
from vitarium.core.errors import NotApplicable
from vitarium.evaluation.batch_statistics import BATCH_SIZE, NUM_IMAGES
from vitarium.evaluation.inputs import EvalModel
from vitarium.evaluation.losses import Losses
from vitarium.measures.landscape._paths import OnPath, barriers, bezier, check_path
from vitarium.measures.landscape.barrier import path_losses
from vitarium.measures.landscape.mode_connectivity import ModeConnectivity, mode_connectivity


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


def test_models_that_compute_otherwise_are_refused_though_shapes_are_equal(examples):
    pair = [small(examples, nn.Linear(64, 10), act()) for act in (nn.GELU, nn.ReLU)]
    with pytest.raises(NotApplicable, match=r"different architectures: .* 2 \(gelu and ReLU\)"):
        check_path(*pair)


def test_buffers_that_differ_are_refused(examples):
    pair = [small(examples, nn.Linear(64, 10)) for _ in range(2)]
    for number, subject in enumerate(pair):
        subject.model.register_buffer("offset", torch.tensor(float(number)))
    with pytest.raises(NotApplicable, match="differ in 'offset', which is a buffer"):
        check_path(*pair)


def test_statistics_of_a_path_are_counted_at_every_point_and_the_ends_keep_theirs(examples):
    """By hand: torch's own recount of each point, on the same images."""
    pair = []
    for seed in range(2):
        torch.manual_seed(seed)
        subject = small(examples, nn.Linear(64, 10), nn.BatchNorm1d(10), nn.Linear(10, 10))
        subject.model[2].running_var += seed
        pair.append(subject)
    config = OnPath(points=3, num_images=100)
    path = path_losses(*pair, config.positions, config)
    middle = deepcopy(pair[0].model)
    states = [subject.model.state_dict() for subject in pair]
    middle.load_state_dict({n: (t + states[1][n]) / 2 for n, t in states[0].items()})
    images = [b.images for b in examples.of("train").first(NUM_IMAGES).batches(BATCH_SIZE)]
    update_bn(images, middle)
    subset = examples.first(100)
    for model, loss in zip((pair[0].model, middle, pair[1].model), path.loss, strict=True):
        model.eval()
        (batch,) = subset.batches(100)
        expected = nn.functional.cross_entropy(model(batch.images).double(), batch.labels)
        torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(pair[1].model[2].running_var, torch.full((10,), 2.0)), "models stay"


def test_a_curve_is_trained_through_batch_normalizations_and_leaves_models_as_they_are(examples):
    pair = [
        replace(small(examples, nn.Linear(64, 10), nn.BatchNorm1d(10)), name=name)
        for name in ("a", "b")
    ]
    states = [deepcopy(subject.model.state_dict()) for subject in pair]
    values = mode_connectivity(ModeConnectivity(steps=2, points=3, num_images=64), *pair)
    assert all(torch.isfinite(torch.tensor(value)) for value in values.values())
    for subject, state in zip(pair, states, strict=True):
        assert all(torch.equal(t, state[n]) for n, t in subject.model.state_dict().items())
        assert not subject.model[2].training


def test_other_data_and_other_image_sizes_are_refused(linear, examples):
    class Larger:
        outputs = examples.outputs
        dataset, input_size = examples.dataset, (1, 16, 16)

    with pytest.raises(NotApplicable, match=r"different sizes: \(1, 8, 8\) and \(1, 16, 16\)"):
        check_path(linear, replace(linear, examples=Larger()))

    class Foreign:
        outputs = examples.outputs
        dataset, input_size = replace(examples.dataset, name="letters"), (1, 8, 8)

    with pytest.raises(NotApplicable, match="different data: 'digits' and 'letters'"):
        check_path(linear, replace(linear, examples=Foreign()))
