"""Alignment by trained maps."""

import pytest
import torch

from vitarium.core import registry
from vitarium.core.errors import IncompatibleWeights, InvalidInput, NotApplicable, UnknownName
from vitarium.evaluation.inputs import Weights
from vitarium.operators.alignment._midpoint import Midpoint
from vitarium.operators.base import Ingredients

SHORT = {"start": "none", "steps": 25, "batch_size": 64, "lr": 0.3}
SCALED = {
    "num_classes": 10,
    "img_size": 8,
    "patch_size": 4,
    "in_chans": 1,
    "embed_dim": 12,
    "depth": 1,
    "num_heads": 3,
    "pre_norm": True,
}
FULL = {"learn": "all", "channels": "invertible"}


def aligned(ingredients, **settings):
    made = registry.choose("operator", "learned_matching", **(SHORT | settings))(ingredients)
    return dict(made)


@pytest.mark.parametrize("settings", [{}, FULL, {"maps": "permutations"}])
def test_the_function_stays_what_it_is(vits, vit, other_vit, digits, outputs, settings):
    given = vits.ingredients(vit, other_vit.state_dict(), digits)
    found = aligned(given, **settings, steps=10)
    before = outputs(other_vit.state_dict())
    off = max((found[n].double() - t).abs().max() for n, t in other_vit.state_dict().items())
    assert off > 0.01
    torch.testing.assert_close(outputs(found), before, rtol=0, atol=1e-9 * before.abs().max())
    single = {name: tensor.float() for name, tensor in found.items()}
    torch.testing.assert_close(outputs(single), before, rtol=0, atol=1e-4)


def test_the_norms_are_those_of_the_first_model(vits, vit, other_vit, digits):
    found = aligned(vits.ingredients(vit, other_vit.state_dict(), digits), steps=2)
    for name in ("norm.weight", "norm.bias", "blocks.0.norm2.weight"):
        assert torch.equal(found[name], vit.state_dict()[name].double())


def test_a_mixed_copy_is_connected_again(vits, vit, digits):
    """No barrier is left between a model and its copy that its symmetries had moved away."""
    given = vits.ingredients(vit, vits.mixed(vit, 3), digits)
    found = aligned(given, steps=80, **FULL)
    between, own = Midpoint(given, 2000), vit.state_dict()
    before, after = (between.losses(own, weights) for weights in (vits.mixed(vit, 3), found))
    assert before[0] - sum(before[1:]) / 2 > 0.3
    assert after[0] <= sum(after[1:]) / 2
    assert given.log.metrics["midpoint_loss"] == after[0]


def test_training_lowers_the_midpoint_of_independent_models(vits, vit, other_vit, digits):
    given = vits.ingredients(vit, other_vit.state_dict(), digits)
    aligned(given)
    told = given.log.metrics
    assert told["midpoint_loss"] < 0.8 * told["midpoint_loss_at_start"]


def test_full_maps_connect_better_than_permutations(vits, vit, other_vit, digits):
    told = []
    for settings in ({}, {"maps": "permutations", "lr": 0.05}):
        given = vits.ingredients(vit, other_vit.state_dict(), digits)
        aligned(given, **settings)
        told.append(given.log.metrics["midpoint_loss"])
    assert told[0] < told[1]


def test_what_training_does_not_improve_is_left_as_the_start_has_it(vits, vit, other_vit, digits):
    given = vits.ingredients(vit, other_vit.state_dict(), digits)
    found = aligned(given, steps=1, lr=1e3, channels="invertible")
    assert all(torch.equal(found[name], t) for name, t in other_vit.state_dict().items())
    told = given.log.metrics
    assert told["midpoint_loss"] == told["midpoint_loss_at_start"]


def test_a_copy_needs_no_training(vits, vit, digits):
    found = aligned(vits.ingredients(vit, vit.state_dict(), digits))
    assert all(torch.equal(found[name], t) for name, t in vit.state_dict().items())


def test_it_starts_from_another_alignment(vits, vit, digits):
    """Weight matching undoes an exchange of units, so that nothing is left to learn."""
    given = vits.ingredients(vit, vits.exchanged(vit, 4), digits)
    found = aligned(given, start="weight_matching")
    assert all(torch.equal(found[name], t) for name, t in vit.state_dict().items())


def test_a_seed_gives_the_same_numbers_and_another_seed_others(vits, vit, other_vit, digits):
    found = [
        aligned(vits.ingredients(vit, other_vit.state_dict(), digits), steps=3, seed=seed)
        for seed in (0, 0, 1)
    ]
    assert all(torch.equal(found[0][name], t) for name, t in found[1].items())
    assert any(not torch.equal(found[0][name], t) for name, t in found[2].items())


def test_a_start_that_does_not_align_is_refused(vits, vit, digits):
    given = vits.ingredients(vit, vit.state_dict(), digits)
    with pytest.raises(InvalidInput, match="'uniform_soup' does not align"):
        aligned(given, start="uniform_soup")
    with pytest.raises(UnknownName, match="did you mean 'weight_matching'"):
        aligned(given, start="weight_machting")


def test_a_head_that_is_left_out_is_refused(vits, vit):
    bare = {n: t for n, t in vit.state_dict().items() if not n.startswith("head")}
    ingredients = Ingredients(
        [Weights("one", bare), Weights("other", bare)],
        symmetries=lambda: vits.vit_symmetries(vit),
    )
    with pytest.raises(IncompatibleWeights, match=r"head\.bias is left out"):
        aligned(ingredients)


def test_images_of_other_classes_are_refused(vits, digits):
    narrow = vits.create_model("vit", num_classes=3, **vits.VIT).eval().requires_grad_(False)
    with pytest.raises(
        NotApplicable, match=r"\[3\] of an image, are not the 10 classes of the data"
    ):
        aligned(vits.ingredients(narrow, narrow.state_dict(), digits))


def test_weights_that_are_not_finite_are_named(vits, vit, digits):
    broken = {name: tensor.clone() for name, tensor in vit.state_dict().items()}
    broken["pos_embed"][0, 0, 0] = float("nan")
    with pytest.raises(IncompatibleWeights, match="other: pos_embed"):
        aligned(vits.ingredients(vit, broken, digits))


def test_units_that_cannot_be_mixed_are_not_learned_as_mixed(vits, digits):
    """A norm before the blocks scales the residual stream itself."""
    first, second = (
        vits.create_model("timm", model="vit_tiny_patch16_224", **SCALED).eval() for _ in range(2)
    )
    with pytest.raises(IncompatibleWeights, match="no such units that can be mixed"):
        aligned(vits.ingredients(first, second.state_dict(), digits), learn="stream")
