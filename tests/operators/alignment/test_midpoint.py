"""The loss halfway between two models."""

import pytest
from torch.nn import functional as F

from vitarium.operators.alignment._midpoint import Midpoint


def test_it_is_that_of_the_mean_of_two_models(vits, vit, other_vit, digits):
    """Against a float64 pass over the images."""
    few = digits.first(200)
    batch = next(few.batches(200))
    one, other = (vits.deepcopy(model).double() for model in (vit, other_vit))
    own = [
        {name: tensor.clone() for name, tensor in model.state_dict().items()}
        for model in (one, other)
    ]
    middle = {name: (own[0][name] + own[1][name]) / 2 for name in own[0]}
    midpoint_losses = []
    for weights in (middle, *own):
        one.load_state_dict(weights)
        midpoint_losses.append(F.cross_entropy(one(batch.images.double()), batch.labels).item())
    between = Midpoint(vits.ingredients(vit, other_vit.state_dict(), digits), 200)
    losses = between.losses(vit.state_dict(), other_vit.state_dict())
    assert losses[:1] == between.losses(vit.state_dict(), other_vit.state_dict(), ends=False)
    assert losses == pytest.approx(midpoint_losses, rel=1e-4)


def test_it_is_that_of_the_model_between_a_model_and_itself(vits, vit, digits):
    between = Midpoint(vits.ingredients(vit, vit.state_dict(), digits), 200)
    assert len(set(between.losses(vit.state_dict(), vit.state_dict()))) == 1
