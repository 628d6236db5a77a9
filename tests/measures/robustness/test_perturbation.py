"""What holds for every measure that changes pixels, and the steps that they share."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitarium.core.config import InvalidConfig
from vitarium.core.errors import NotApplicable
from vitarium.core.registry import choose
from vitarium.evaluation.data import EvalData
from vitarium.measures.robustness._perturbation import (
    Perturbing,
    ascend,
    drawn,
    fooling_rate,
    margin,
    pixel_batches,
    shifted,
    streams,
)

MEASURES = {
    "corruptions": {"severities": [3]},
    "patch_corruption": {},
    "patch_attack": {"steps": 3, "step_size": 0.3},
    "patch_attention": {"steps": 3, "step_size": 0.3},
    "shift_consistency": {},
    "downstream_transfer_attack": {"steps": 3, "search_steps": 1},
}


@pytest.fixture
def descended(subject, other):
    """The first model, as if it had been fine-tuned from the second."""
    return replace(subject, parent=lambda: other)


def measured(name, subject, **changes):
    return choose("measure", name, **{"num_images": 60, **MEASURES[name], **changes})(subject)


@pytest.mark.parametrize("name", MEASURES)
def test_the_value_does_not_depend_on_the_batch_size(descended, name):
    whole, parts = (measured(name, descended, batch_size=size) for size in (60, 17))
    # Matrix products of another shape may round a logit otherwise, and so turn one image.
    assert parts == pytest.approx(whole, abs=1.01 / 30)


@pytest.mark.parametrize("name", MEASURES)
def test_the_same_seed_gives_the_same_value_and_draws_nothing_globally(descended, name):
    state = torch.get_rng_state()
    first = measured(name, descended)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert measured(name, descended) == first


@pytest.mark.parametrize("name", MEASURES)
def test_models_stay_as_they_were(descended, name):
    parent = descended.parent()
    for one in (descended, parent):
        one.model.requires_grad_(True)
    before = [deepcopy(one.model.state_dict()) for one in (descended, parent)]
    changes = {"temperature": 2.0} if name.startswith("patch") else {}
    measured(name, descended, **changes)
    for one, weights in zip((descended, parent), before, strict=True):
        assert all(torch.equal(weights[k], v) for k, v in one.model.state_dict().items())
        assert all(p.requires_grad and p.grad is None for p in one.model.parameters())
        for module in one.model.modules():
            assert not module.training
            assert not module._forward_hooks
            assert getattr(module, "fused_attn", True)


@pytest.mark.parametrize("name", MEASURES)
def test_values_can_be_measured_where_gradients_are_off(descended, name):
    with torch.no_grad():
        off = measured(name, descended)
    assert off == measured(name, descended)


@pytest.mark.parametrize("name", MEASURES)
def test_only_classifiers_are_measured(descended, name):
    with pytest.raises(NotApplicable, match="aaaaaaaaaaaa@1: its outputs are not the 10 classes"):
        measured(name, replace(descended, is_classifier=False))


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize("wrong", [{"num_images": 0}, {"batch_size": 0}, {"unknown": 1}])
def test_settings_are_checked(name, wrong):
    with pytest.raises(InvalidConfig, match=next(iter(wrong))):
        choose("measure", name, **wrong)


def test_pixel_batches_are_all_images_in_order_in_zero_to_one(examples):
    batches = list(pixel_batches(examples, 100))
    assert [place for batch in batches for place in batch.indices] == list(range(359))
    assert torch.equal(torch.cat([batch.labels for batch in batches]), examples.labels)
    assert all(batch.pixels.min() >= 0 and batch.pixels.max() <= 1 for batch in batches)
    some = batches[1].of(torch.arange(100) % 50 == 3)
    assert some.indices == [103, 153]
    assert torch.equal(some.pixels, batches[1].pixels[[3, 53]])


def test_an_image_has_a_stream_of_its_own_by_seed_name_and_place():
    def draws(seed, name, places):
        return drawn(torch.rand, (4,), streams(seed, name, places))

    assert torch.equal(draws(1, "a", [5, 7])[1], draws(1, "a", [7])[0])
    different = [draws(1, "a", [7]), draws(2, "a", [7]), draws(1, "b", [7]), draws(1, "a", [8])]
    assert len({tuple(d[0].tolist()) for d in different}) == 4


@settings(deadline=None, max_examples=15)
@given(down=st.integers(-9, 9), across=st.integers(-9, 9))
def test_a_circular_shift_is_a_roll(down, across):
    pixels = torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    steps = [torch.tensor([down, 1]), torch.tensor([across, -2])]
    rolled = [pixels[0].roll((down, across), (1, 2)), pixels[1].roll((1, -2), (1, 2))]
    assert torch.equal(shifted(pixels, *steps, "circular"), torch.stack(rolled))


def test_what_comes_in_is_the_border_or_black():
    pixels = torch.arange(1.0, 10).view(1, 1, 3, 3)
    one, none = torch.tensor([1]), torch.tensor([0])
    assert shifted(pixels, one, none, "edge")[0, 0].tolist() == [[1, 2, 3], [1, 2, 3], [4, 5, 6]]
    assert shifted(pixels, none, -one, "zero")[0, 0].tolist() == [[2, 3, 0], [5, 6, 0], [8, 9, 0]]
    assert not shifted(pixels, 3 * one, none, "zero").any()


def test_the_margin_is_positive_exactly_where_the_class_is_wrong():
    logits = torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(200) % 5
    gap = margin(logits, labels)
    assert torch.equal(gap > 0, logits.argmax(1) != labels)
    assert gap[0] == logits[0, 1:].max() - logits[0, 0]


def test_ascent_of_a_linear_function_ends_in_its_corner():
    """The maximum over the box and [0, 1] is known: each pixel as far as its weight's sign says."""
    generator = torch.Generator().manual_seed(0)
    pixels, weights = torch.rand(2, 3, 1, 4, 4, generator=generator)
    weights = weights - 0.5
    mask = torch.zeros(3, 1, 4, 4, dtype=torch.bool)
    mask[:, :, :2] = True

    def linear(now):
        value = (weights * now).sum((1, 2, 3))
        return value, value

    found = ascend(linear, pixels, steps=5, step_size=0.1, epsilon=0.3, mask=mask)
    corner = (pixels + 0.3 * weights.sign() * mask).clamp(0, 1)
    assert torch.allclose(found, corner, atol=1e-6)
    assert torch.equal(found[~mask], pixels[~mask])


def test_ascent_keeps_the_best_image_that_it_saw():
    """A step far too long leaps over the top of a parabola; what it started from was better."""

    def parabola(now):
        value = -((now - 0.5) ** 2).sum((1, 2, 3))
        return value, value

    pixels = torch.full((1, 1, 2, 2), 0.4)
    assert torch.equal(ascend(parabola, pixels, steps=3, step_size=0.6, epsilon=1.0), pixels)


def test_the_fooling_rate_is_of_what_was_right_before(subject, examples):
    batch = next(pixel_batches(examples, 359))
    black = torch.zeros_like(batch.pixels)
    with torch.no_grad():
        before = subject.model(examples.normalized(batch.pixels)).argmax(1) == batch.labels
        after = subject.model(examples.normalized(black)).argmax(1) == batch.labels
    config = Perturbing(num_images=359)
    values = fooling_rate(config, subject, lambda batch: torch.zeros_like(batch.pixels))
    assert values == {
        "": (before & ~after).sum().item() / before.sum().item(),
        "accuracy": after.sum().item() / 359,
        "clean": before.sum().item() / 359,
    }


def test_without_a_right_class_there_is_nothing_to_lose(subject, examples):
    with torch.no_grad():
        classes = torch.cat([subject.model(b.images).argmax(1) for b in examples.batches()])
    wrong = EvalData(examples._batches, "test", (classes != examples.labels).nonzero()[:20, 0])
    with pytest.raises(NotApplicable, match="none of its classes of 20 images was right"):
        fooling_rate(Perturbing(), replace(subject, examples=wrong), lambda batch: batch.pixels)
