"""Adversarial patches: where they are, and that they fool."""

import pytest
import torch
from torch.nn import functional as F

from vitarium.core.config import InvalidConfig
from vitarium.core.registry import choose
from vitarium.measures.robustness._patches import patch_grid
from vitarium.measures.robustness._perturbation import pixel_batches
from vitarium.measures.robustness.patch_attack import PatchAttack, patches_attacked

FAST = {"num_images": 80, "steps": 12, "step_size": 0.15}


def measured(subject, **settings):
    return choose("measure", "patch_attack", **{**FAST, **settings})(subject)


@pytest.fixture
def batch(examples):
    return next(pixel_batches(examples, 60))


def attack(subject, batch, **settings):
    """The attacked pixels, and where they may differ."""
    config = PatchAttack(**{**FAST, **settings})
    grid = patch_grid(subject, config.size)
    mask = grid.pixels(grid.chosen(config, batch.indices))
    return patches_attacked(config, grid, subject, batch), mask


def loss(subject, pixels, labels):
    with torch.no_grad():
        logits = subject.model(subject.examples.normalized(pixels))
    return F.cross_entropy(logits, labels, reduction="none")


def test_only_pixels_of_the_patch_change_and_stay_in_zero_to_one(subject, batch):
    changed, mask = attack(subject, batch)
    assert torch.equal(changed[~mask], batch.pixels[~mask])
    assert (changed[mask] != batch.pixels[mask]).float().mean() > 0.5
    assert changed.min() >= 0
    assert changed.max() <= 1


def test_epsilon_bounds_the_change(subject, batch):
    changed, _ = attack(subject, batch, epsilon=0.1)
    difference = (changed - batch.pixels).abs()
    assert 0.09 < difference.max() <= 0.1 + 1e-6


def test_it_lowers_the_probability_of_the_right_class_more_than_noise_does(subject, batch):
    changed, mask = attack(subject, batch)
    clean = loss(subject, batch.pixels, batch.labels)
    attacked = loss(subject, changed, batch.labels)
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(batch.pixels.shape, generator=generator)
    random = loss(subject, torch.where(mask, noise, batch.pixels), batch.labels)
    assert (attacked > clean).float().mean() > 0.9
    assert (attacked > random).float().mean() > 0.8


def test_its_value_is_the_share_of_right_images_that_become_wrong(subject, examples):
    values = measured(subject)
    (batch,) = pixel_batches(examples.first(80), 80)
    changed, _ = attack(subject, batch)
    with torch.no_grad():
        before, after = (
            subject.model(examples.normalized(pixels)).argmax(1) == batch.labels
            for pixels in (batch.pixels, changed)
        )
    assert values["clean"] == pytest.approx(before.float().mean().item())
    assert values["accuracy"] == pytest.approx((before & after).float().mean().item(), abs=0.02)
    assert values[""] == pytest.approx(1 - values["accuracy"] / values["clean"])


def test_without_epsilon_nothing_is_fooled(subject):
    values = measured(subject, epsilon=0)
    assert values[""] == 0
    assert values["accuracy"] == values["clean"]


def test_a_larger_and_a_longer_attack_fools_more(subject):
    assert measured(subject, steps=1)[""] < measured(subject)[""] < measured(subject, size=4)[""]


def test_the_defended_model_is_the_one_that_is_attacked(subject, batch):
    """With the temperature on, the gradient is of the smoothed model: uniform attention here."""
    values = measured(subject, temperature=1e9)
    assert values["clean"] < measured(subject)["clean"]
    assert values["accuracy"] <= values["clean"]


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"step_size": 0}, {"step_size": 2}, {"epsilon": 1.5}]
)
def test_wrong_settings_are_named(wrong):
    with pytest.raises(InvalidConfig, match=next(iter(wrong))):
        choose("measure", "patch_attack", **wrong)
