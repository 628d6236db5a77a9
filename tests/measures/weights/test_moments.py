"""weight_mean, weight_std, weight_kurtosis: against NumPy and SciPy."""

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitarium.core.errors import NotApplicable
from vitarium.core.registry import choose
from vitarium.evaluation.inputs import Weights

REFERENCES = {
    "weight_mean": np.mean,
    "weight_std": np.std,
    "weight_kurtosis": scipy.stats.kurtosis,
}


def entries(tensors) -> np.ndarray:
    return torch.cat([tensor.flatten().double() for tensor in tensors]).numpy()


@pytest.mark.parametrize("name", REFERENCES)
def test_moments_are_numpys_of_every_tensor_and_of_all_entries(name, subject):
    weights = Weights("a@1", subject.model.state_dict())
    values = choose("measure", name)(weights)
    assert values.keys() == {"", *weights}
    assert values[""] == pytest.approx(REFERENCES[name](entries(weights.values())), rel=1e-9)
    for tensor in weights:
        expected = REFERENCES[name](entries([weights[tensor]]))
        assert values[tensor] == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", REFERENCES)
@settings(deadline=None, max_examples=20)
@given(
    sizes=st.lists(st.integers(2, 40), min_size=1, max_size=4),
    offset=st.floats(-1000, 1000),
    seed=st.integers(0, 2**31),
)
def test_moments_of_the_whole_do_not_suffer_from_different_means(name, sizes, offset, seed):
    noise = torch.Generator().manual_seed(seed)
    tensors = {
        f"t{number}": offset * number + torch.randn(size, generator=noise)
        for number, size in enumerate(sizes)
    }
    value = choose("measure", name)(Weights("a@1", tensors))[""]
    assert value == pytest.approx(REFERENCES[name](entries(tensors.values())), rel=1e-6, abs=1e-9)


def test_moments_are_those_of_the_chosen_tensors():
    weights = Weights("a@1", {"x.weight": torch.tensor([1.0, 3.0]), "y": torch.ones(9)})
    assert choose("measure", "weight_mean", names="x")(weights) == {"": 2, "x.weight": 2}
    with pytest.raises(NotApplicable, match="no tensor has 'z' in its name"):
        choose("measure", "weight_mean", names="z")(weights)


def test_equal_weights_have_no_kurtosis():
    weights = Weights("a@1", {"x": torch.full((7,), 0.1), "y": torch.arange(4.0)})
    assert choose("measure", "weight_kurtosis")(weights).keys() == {"", "y"}
    assert choose("measure", "weight_std")(weights)["x"] == 0
    with pytest.raises(NotApplicable, match="all weights are equal"):
        choose("measure", "weight_kurtosis", names="x")(weights)
