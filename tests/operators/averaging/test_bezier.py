"""Models on trained curves between two models."""

import pytest
import torch

from vitarium.core import registry
from vitarium.core.config import InvalidConfig
from vitarium.evaluation.inputs import EvalModel
from vitarium.measures.landscape._paths import bezier as point_of
from vitarium.measures.landscape.mode_connectivity import ModeConnectivity, curve
from vitarium.operators.alignment._midpoint import Midpoint

SHORT = {"steps": 20, "lr": 0.01, "batch_size": 64}


def on_curve(ingredients, **settings):
    return dict(registry.choose("operator", "bezier", **(SHORT | settings))(ingredients))


def test_the_model_halfway_is_better_than_on_the_line(vits, vit, other_vit, digits):
    given = vits.ingredients(vit, other_vit.state_dict(), digits)
    found, between = on_curve(given, steps=60), Midpoint(given, 2000)
    straight = between.losses(vit.state_dict(), other_vit.state_dict())[0]
    assert between.losses(found, found)[0] < 0.8 * straight


@pytest.mark.parametrize(("t", "end"), [(0, "one"), (1, "other")])
def test_its_ends_are_the_models(vits, vit, other_vit, digits, t, end):
    found = on_curve(vits.ingredients(vit, other_vit.state_dict(), digits), t=t, steps=2)
    expected = {"one": vit, "other": other_vit}[end].state_dict()
    assert all(torch.equal(found[name], tensor.double()) for name, tensor in expected.items())


def test_the_curve_is_that_of_the_measure(vits, vit, other_vit, digits):
    found = on_curve(vits.ingredients(vit, other_vit.state_dict(), digits), t=0.3, bends=2, steps=4)
    training = ModeConnectivity(bends=2, steps=4, lr=0.01, train_batch_size=64, train_images=5000)
    subjects = [EvalModel(name, m, digits) for name, m in (("one", vit), ("other", other_vit))]
    expected = point_of(curve(*subjects, training), 0.3)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name].float(), tensor)


def test_between_copies_there_is_no_way_to_go(vits, vit, digits):
    found = on_curve(vits.ingredients(vit, vit.state_dict(), digits))
    assert all(torch.equal(found[name], tensor) for name, tensor in vit.state_dict().items())


def test_a_place_off_the_curve_is_refused():
    with pytest.raises(InvalidConfig, match="t: "):
        registry.choose("operator", "bezier", t=1.5)
