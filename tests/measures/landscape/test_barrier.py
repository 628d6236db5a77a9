"""The barrier on the straight line between two models."""

from copy import deepcopy

import pytest
import torch
from torch.nn import functional as F

from vitarium.core.registry import choose
from vitarium.measures.landscape._paths import OnPath
from vitarium.measures.landscape.barrier import path_losses

FEW = {"points": 5, "num_images": 100}


def on_the_line(one, other, t):
    """Loss and error of (1 - t) A + t B in float64."""
    model = deepcopy(one.model).double()
    ends = zip(one.model.parameters(), other.model.parameters(), strict=True)
    for parameter, (a, b) in zip(model.parameters(), ends, strict=True):
        parameter.copy_((1 - t) * a.double() + t * b.double())
    batch = next(one.examples.first(100).batches(100))
    logits = model(batch.images.double())
    error = (logits.argmax(1) != batch.labels).double().mean()
    return torch.stack([F.cross_entropy(logits, batch.labels), error])


def test_is_the_highest_rise_of_a_float64_loop(subject, other):
    places = [0, 0.25, 0.5, 0.75, 1]
    line = torch.stack([on_the_line(subject, other, t) for t in places])
    straight = torch.stack([(1 - t) * line[0] + t * line[-1] for t in places])
    loss, error = (line - straight).max(0).values.tolist()
    middle = (line - straight)[2].tolist()
    assert loss > 0.1
    assert choose("measure", "barrier", **FEW)(subject, other) == {
        "": pytest.approx(loss, rel=1e-4),
        "error": pytest.approx(error, abs=1e-9),
        "midpoint/loss": pytest.approx(middle[0], rel=1e-4),
        "midpoint/error": pytest.approx(middle[1], abs=1e-9),
    }


def test_of_a_model_with_itself_is_zero(subject):
    values = choose("measure", "barrier", **FEW)(subject, subject)
    assert values == dict.fromkeys(["", "error", "midpoint/loss", "midpoint/error"], 0)


def test_is_the_same_in_both_directions(subject, other):
    measure = choose("measure", "barrier", **FEW)
    assert measure(subject, other) == pytest.approx(measure(other, subject), rel=1e-5)


def test_a_convex_loss_has_none(linear):
    other = deepcopy(linear)
    for parameter in other.model.parameters():
        parameter.neg_()
    values = choose("measure", "barrier", **FEW)(linear, other)
    assert values[""] == 0
    assert values["midpoint/loss"] < -0.01


def test_losses_of_a_path_are_given_for_any_places(subject, other):
    losses = path_losses(subject, other, [0.0, 0.7], OnPath(num_images=100))
    expected = torch.stack([on_the_line(subject, other, t) for t in (0.0, 0.7)])
    torch.testing.assert_close(losses.loss, expected[:, 0], rtol=1e-4, atol=0)
    torch.testing.assert_close(losses.error, expected[:, 1])
