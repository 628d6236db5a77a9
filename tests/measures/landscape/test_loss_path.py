"""The loss along paths between two models."""

import pytest
import torch

from vitarium.core.registry import choose
from vitarium.measures.landscape._paths import OnPath, barriers, losses_along
from vitarium.measures.landscape.barrier import path_losses
from vitarium.measures.landscape.loss_path import LossPath, losses_on_path
from vitarium.measures.landscape.mode_connectivity import ModeConnectivity, curve

FEW = {"points": 5, "num_images": 50}


def test_a_line_is_told_point_by_point(subject, other):
    values = choose("measure", "loss_path", **FEW)(subject, other)
    places = ["0.00", "0.25", "0.50", "0.75", "1.00"]
    line = path_losses(subject, other, [0.0, 0.25, 0.5, 0.75, 1.0], OnPath(num_images=50))
    assert list(values) == [f"{what}/{place}" for what in ("loss", "error") for place in places]
    assert list(values.values()) == [*line.loss.tolist(), *line.error.tolist()]


def test_its_highest_rise_is_the_barrier(subject, other):
    config = LossPath(**FEW)
    found = barriers(config.positions, losses_on_path(config, subject, other))
    assert found == choose("measure", "barrier", **FEW)(subject, other)


def test_places_between_hundredths_are_told_with_four_digits(subject):
    values = choose("measure", "loss_path", points=9, num_images=10)(subject, subject)
    assert list(values)[1] == "loss/0.1250"


def test_a_curve_is_that_of_mode_connectivity_in_either_direction(subject, other):
    training = {"steps": 4, "train_images": 64, "lr": 0.01}
    config = LossPath(**FEW, **training, curve="bezier")
    known = ModeConnectivity(**FEW, **training)
    expected = losses_along(subject, curve(subject, other, known), known.positions, known)
    there, back = losses_on_path(config, subject, other), losses_on_path(config, other, subject)
    assert torch.equal(there.loss, expected.loss)
    assert torch.equal(back.loss, expected.loss.flip(0))
    assert torch.equal(back.error, there.error.flip(0))


def test_a_trained_curve_is_lower_than_the_line(subject, other):
    training = {"steps": 40, "lr": 0.01, "train_batch_size": 32}
    line, bent = (
        losses_on_path(LossPath(**FEW, **training, curve=kind), subject, other)
        for kind in ("line", "bezier")
    )
    assert bent.loss.max() < line.loss.max()
    assert bent.loss[[0, -1]].tolist() == pytest.approx(line.loss[[0, -1]].tolist())
