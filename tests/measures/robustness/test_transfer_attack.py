"""Attacks on a parent: what they change, and how they go over to the child."""

from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vitarium.architectures.features import blocks
from vitarium.core.config import InvalidConfig
from vitarium.core.errors import NotApplicable
from vitarium.core.registry import choose
from vitarium.measures.robustness._perturbation import pixel_batches
from vitarium.measures.robustness.transfer_attack import DownstreamTransferAttack, attacked

FAST = {"num_images": 80, "steps": 8, "search_steps": 2, "step_size": 0.05, "epsilon": 0.15}


@pytest.fixture
def descended(subject, other):
    """Fine-tuned from `other`: it moved some of the way only."""
    model = deepcopy(subject.model)
    with torch.no_grad():
        pairs = zip(model.parameters(), other.model.parameters(), strict=True)
        for parameter, parents in pairs:
            parameter.copy_(parents + 0.05 * (parameter - parents))
    return replace(subject, model=model, parent=lambda: other)


def measured(subject, **settings):
    return choose("measure", "downstream_transfer_attack", **{**FAST, **settings})(subject)


def tokens(subject, layer, pixels):
    """Output of a block, from the model's own intermediate outputs."""
    images = subject.examples.normalized(pixels)
    outputs = subject.model.forward_intermediates(
        images,
        indices=[layer],
        intermediates_only=True,
        output_fmt="NLC",
        return_prefix_tokens=True,
    )
    patches, prefix = outputs[0]
    return torch.cat([prefix, patches], dim=1)


def test_without_epsilon_nothing_changes(descended):
    values = measured(descended, epsilon=0)
    assert values[""] == 0
    assert values["accuracy"] == values["clean"]
    assert values["similarity"] == pytest.approx(1, abs=1e-6)


def test_what_fools_the_parents_tokens_fools_the_child(descended):
    values = measured(descended)
    assert values[""] > 0.2
    assert values["accuracy"] < values["clean"]
    assert values["similarity"] < 0.9
    assert values["layer"] in (0, 1)


def test_it_fools_more_than_noise_of_the_same_size(descended):
    examples = descended.examples.first(80)
    generator = torch.Generator().manual_seed(0)
    lost = right = 0
    for batch in pixel_batches(examples, 80):
        noise = 0.15 * (2 * torch.rand(batch.pixels.shape, generator=generator) - 1).sign()
        with torch.no_grad():
            classes = [
                descended.model(examples.normalized(pixels)).argmax(1)
                for pixels in (batch.pixels, (batch.pixels + noise).clamp(0, 1))
            ]
        before = classes[0] == batch.labels
        right += before.sum().item()
        lost += (before & (classes[1] != batch.labels)).sum().item()
    assert measured(descended)[""] > 1.2 * lost / right


def test_the_perturbation_is_bounded_and_lowers_the_cosine_of_the_layer(descended, other):
    config = DownstreamTransferAttack(**FAST)
    batch = next(pixel_batches(descended.examples, 30))
    for layer, block in enumerate(blocks(other.model).values()):
        changed, cosines = attacked(config, other, block, batch, steps=8)
        assert (changed - batch.pixels).abs().max() <= 0.15 + 1e-6
        assert changed.min() >= 0
        assert changed.max() <= 1
        clean, moved = (tokens(other, layer, pixels) for pixels in (batch.pixels, changed))
        expected = F.cosine_similarity(clean, moved, dim=-1).mean(1)
        assert torch.allclose(cosines, expected, atol=1e-5)
        started, _ = attacked(config, other, block, batch, steps=1)
        early = F.cosine_similarity(clean, tokens(other, layer, started), dim=-1).mean(1)
        assert (cosines < early).float().mean() > 0.9
        assert cosines.mean() < 0.98


def test_the_most_vulnerable_layer_is_where_a_short_attack_lowers_the_cosine_most(descended):
    """With all images in the search, a search of so many steps is the attack itself."""
    reached = [measured(descended, layer=layer)["similarity"] for layer in (0, 1)]
    values = measured(descended, search_images=80, search_steps=8)
    assert values["layer"] == reached.index(min(reached))
    assert values["similarity"] == pytest.approx(min(reached), abs=1e-6)


def test_the_parents_normalisation_is_its_own(descended):
    """A parent that was trained on other data sees the same pixels, normalized as those were."""
    parent = descended.parent()
    doubled = SimpleNamespace(
        input_size=parent.examples.input_size, normalized=lambda pixels: 2 * pixels - 1
    )
    seen = []
    model = deepcopy(parent.model)
    model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    foreign = replace(parent, model=model, examples=doubled)
    measured(replace(descended, parent=lambda: foreign), layer=0, steps=1)
    pixels = next(pixel_batches(descended.examples.first(80), 64)).pixels
    assert torch.allclose(seen[0], 2 * pixels - 1)


def test_a_model_without_a_parent_cannot_be_attacked_through_it(subject):
    with pytest.raises(NotApplicable, match="aaaaaaaaaaaa@1: it has no parent"):
        measured(subject)


def test_a_parent_of_another_input_size_is_refused(descended, other):
    larger = SimpleNamespace(input_size=(3, 32, 32))
    parent = replace(other, examples=larger)
    with pytest.raises(NotApplicable, match="1 x 8 x 8, its parent bbbbbbbbbbbb@1 of 3 x 32"):
        measured(replace(descended, parent=lambda: parent))


def test_a_parent_without_blocks_is_refused(descended, other):
    flat = replace(other, model=nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    with pytest.raises(NotApplicable, match="bbbbbbbbbbbb@1: Sequential has no blocks"):
        measured(replace(descended, parent=lambda: flat))


def test_a_block_that_there_is_not_is_refused(descended):
    with pytest.raises(NotApplicable, match="has no block 2, the last is 1"):
        measured(descended, layer=2)


@pytest.mark.parametrize(
    "wrong",
    [{"epsilon": -0.1}, {"epsilon": 2}, {"steps": 0}, {"step_size": 0}, {"layer": -1}],
)
def test_wrong_settings_are_named(wrong):
    with pytest.raises(InvalidConfig, match=next(iter(wrong))):
        choose("measure", "downstream_transfer_attack", **wrong)
