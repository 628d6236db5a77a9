"""weight_norm: of all weights as one vector, and of each tensor."""

import math

import pytest
import torch

from vitarium.core.errors import NotApplicable
from vitarium.core.registry import choose
from vitarium.evaluation.inputs import Weights

WEIGHTS = Weights(
    "a@1",
    {
        "a.weight": torch.tensor([[3.0, 0.0]]),
        "b.bias": torch.tensor([-4.0]),
        "count": torch.tensor(7),
    },
)


def test_the_norm_is_that_of_all_weights_as_one_vector():
    assert choose("measure", "weight_norm")(WEIGHTS) == {"": 5, "a.weight": 3, "b.bias": 4}
    assert choose("measure", "weight_norm", order=1)(WEIGHTS)[""] == 7
    assert choose("measure", "weight_norm", names="bias")(WEIGHTS) == {"": 4, "b.bias": 4}
    assert choose("measure", "weight_norm", names="none")(WEIGHTS) == {"": 0}


def test_the_norm_does_not_lose_small_weights():
    weights = Weights("a@1", {"w": torch.full((1_000_000,), 0.1)})
    expected = 1000 * torch.tensor(0.1).double().item()
    assert math.isclose(choose("measure", "weight_norm")(weights)[""], expected, rel_tol=1e-9)


def test_a_bad_weight_is_named():
    weights = Weights("a@1", {"w": torch.tensor([1.0, torch.nan])})
    with pytest.raises(NotApplicable, match="a@1: w has entries that are not finite"):
        choose("measure", "weight_norm")(weights)
