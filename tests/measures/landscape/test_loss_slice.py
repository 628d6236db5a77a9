"""Slices of the loss landscape along filter-normalized directions."""

import pytest
import torch

from vitarium.core.config import InvalidConfig
from vitarium.core.registry import choose
from vitarium.evaluation.losses import losses, parameters
from vitarium.measures.landscape.loss_slice import LossSlice, direction, slice_losses


def test_in_the_middle_is_the_model_itself(subject):
    examples = subject.examples.first(50)
    own = losses(subject.model, lambda: [parameters(subject.model)], examples).loss.item()
    line = choose("measure", "loss_slice", points=3, num_images=50)(subject)
    plane = choose("measure", "loss_slice", points=3, num_images=50, dimensions=2)(subject)
    assert list(line) == ["-1", "0", "1"]
    assert list(plane) == [f"{x},{y}" for x in (-1, 0, 1) for y in (-1, 0, 1)]
    assert line["0"] == plane["0,0"] == own
    assert {place: plane[f"{place},0"] for place in line} == line


def test_a_point_is_the_weights_moved_along_the_directions(subject):
    config = LossSlice(dimensions=2, points=5, radius=0.5, num_images=50)
    own = parameters(subject.model)
    x, y = (direction(own, config, axis) for axis in (0, 1))
    moved = {n: t - 0.25 * x[n] + 0.5 * y[n] if n in x else t for n, t in own.items()}
    expected = losses(subject.model, lambda: [moved], subject.examples.first(50))
    found = slice_losses(subject, config)
    assert config.coordinates == [-0.5, -0.25, 0, 0.25, 0.5]
    assert found.loss.shape == found.error.shape == (5, 5)
    assert found.loss[1, 4].item() == pytest.approx(expected.loss.item(), rel=1e-5)
    assert found.error[1, 4].item() == pytest.approx(expected.error.item())


def test_every_filter_of_a_direction_is_as_long_as_that_of_the_weights(subject):
    own = parameters(subject.model)
    found = direction(own, LossSlice())
    filters = {
        "blocks.0.attn.qkv.weight": 48,
        "patch_embed.proj.weight": 16,
        "pos_embed": 17,
        "cls_token": 1,
    }
    for name, count in filters.items():
        lengths = [tensor[name].reshape(count, -1).norm(dim=1) for tensor in (found, own)]
        torch.testing.assert_close(*lengths)
        angle = torch.cosine_similarity(found[name].flatten(), own[name].flatten(), dim=0)
        assert abs(angle) < 0.7, name


def test_biases_and_norms_stay_unless_they_are_asked_for(subject):
    own = parameters(subject.model)
    vectors = {name for name, tensor in own.items() if tensor.ndim == 1}
    assert "blocks.0.norm1.weight" in vectors
    assert set(direction(own, LossSlice())) == set(own) - vectors
    everything = direction(own, LossSlice(biases=True))
    assert set(everything) == set(own)
    for name in vectors:
        torch.testing.assert_close(everything[name].norm(), own[name].norm())


def test_a_filter_of_zeros_does_not_move(linear):
    linear.model[1].weight[3] = 0
    found = direction(parameters(linear.model), LossSlice())
    assert torch.equal(found["1.weight"][3], torch.zeros(64))


def test_axes_and_seeds_have_directions_of_their_own(linear):
    own = parameters(linear.model)
    config = LossSlice()
    drawn = [
        direction(own, config)["1.weight"],
        direction(own, config, 1)["1.weight"],
        direction(own, LossSlice(seed=1))["1.weight"],
    ]
    for place, one in enumerate(drawn):
        for other in drawn[:place]:
            assert abs(torch.cosine_similarity(one.flatten(), other.flatten(), dim=0)) < 0.2
    assert torch.equal(direction(own, config)["1.weight"], drawn[0])


def test_a_slice_has_two_points_and_two_dimensions_at_most():
    with pytest.raises(InvalidConfig, match=r"points"):
        LossSlice.read({"points": 1})
    with pytest.raises(InvalidConfig, match=r"dimensions"):
        LossSlice.read({"dimensions": 3})
