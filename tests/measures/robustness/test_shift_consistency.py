"""Consistency under shifts: models that must have it, and a count by brute force."""

from dataclasses import replace
from itertools import combinations

import pytest
import torch
from torch import nn

from vitarium.core.config import InvalidConfig
from vitarium.core.registry import choose
from vitarium.measures.robustness._perturbation import streams


def measured(subject, **settings):
    return choose("measure", "shift_consistency", **settings)(subject)


class CircularConvolution(nn.Module):
    """A circular convolution and a global mean: what is moved round stays the same.

    Ten classes, each as frequent: by the tenth of the images that the mean lies in.
    """

    def __init__(self, examples):
        super().__init__()
        torch.manual_seed(3)
        self.convolution = nn.Conv2d(1, 8, 3, padding=1, padding_mode="circular")
        with torch.no_grad():
            means = torch.cat([self.mean(batch.images) for batch in examples.batches()])
        self.centers = means.quantile(torch.arange(0.05, 1, 0.1))

    def mean(self, images):
        return self.convolution(images).relu().mean((1, 2, 3))

    def forward(self, images):
        return -(self.mean(images)[:, None] - self.centers).abs()


@pytest.fixture
def invariant(subject):
    return replace(subject, model=CircularConvolution(subject.examples).eval())


def test_without_a_shift_all_is_the_same(subject, predictions):
    values = measured(subject, max_shift=0, num_images=359)
    accuracy = predictions.correct.float().mean().item()
    assert values[""] == 1
    for part in ("accuracy", "worst", "clean"):
        assert values[part] == pytest.approx(accuracy)


def test_a_model_that_does_not_see_circular_shifts_is_consistent(invariant):
    values = measured(invariant, max_shift=7)
    assert values[""] > 0.995
    assert values["accuracy"] == pytest.approx(values["clean"], abs=0.01)


def test_the_same_model_sees_what_is_cut_off(invariant):
    assert measured(invariant, max_shift=3, mode="zero")[""] < 0.8


def test_a_vision_transformer_is_not_consistent(subject):
    values = measured(subject)
    assert values[""] < 0.9
    assert values["worst"] < values["accuracy"] < values["clean"]


@pytest.mark.parametrize("mode", ["circular", "edge", "zero"])
def test_it_is_the_share_of_equal_pairs(subject, mode):
    """Pair by pair, images moved one by one."""
    values = measured(subject, num_images=20, shifts=3, max_shift=2, seed=5, mode=mode)
    examples, equal, right, worst = subject.examples.first(20), [], [], []
    for place, batch in enumerate(examples.batches(1)):
        (generator,) = streams(5, "shifts", [place])
        steps = torch.randint(-2, 3, (3, 2), generator=generator).tolist()
        pixels = examples.pixels(batch.images).clamp(0, 1)[0, 0]
        classes = []
        for down, across in steps:
            moved = torch.zeros_like(pixels)
            for row in range(8):
                for column in range(8):
                    y, x = row - down, column - across
                    if mode == "circular":
                        moved[row, column] = pixels[y % 8, x % 8]
                    elif mode == "edge":
                        moved[row, column] = pixels[min(max(y, 0), 7), min(max(x, 0), 7)]
                    elif 0 <= y < 8 and 0 <= x < 8:
                        moved[row, column] = pixels[y, x]
            with torch.no_grad():
                logits = subject.model(examples.normalized(moved[None, None]))
            classes.append(logits.argmax().item())
        equal += [one == other for one, other in combinations(classes, 2)]
        right += [one == batch.labels.item() for one in classes]
        worst.append(all(one == batch.labels.item() for one in classes))
    assert values[""] == pytest.approx(sum(equal) / 60)
    assert values["accuracy"] == pytest.approx(sum(right) / 60)
    assert values["worst"] == pytest.approx(sum(worst) / 20)


def test_an_eighth_of_the_image_is_the_longest_shift(subject):
    assert measured(subject, num_images=40) == measured(subject, num_images=40, max_shift=1)


@pytest.mark.parametrize(
    "wrong", [{"max_shift": -1}, {"shifts": 1}, {"mode": "reflect"}, {"shifts": 2.5}]
)
def test_wrong_settings_are_named(wrong):
    with pytest.raises(InvalidConfig, match=next(iter(wrong))):
        choose("measure", "shift_consistency", **wrong)
