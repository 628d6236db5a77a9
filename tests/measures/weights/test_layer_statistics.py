"""layer_statistics: seven numbers for every tensor."""

import numpy as np
import pytest
import torch

from vitarium import create_model
from vitarium.core.config import InvalidConfig
from vitarium.core.devices import meta_device
from vitarium.core.errors import NotApplicable
from vitarium.core.registry import choose
from vitarium.evaluation.inputs import Weights


def test_a_vit_s_has_1064_numbers():
    with meta_device():
        shapes = create_model("vit_small_patch16_224", num_classes=100).state_dict()
    weights = {name: torch.zeros(tensor.shape) for name, tensor in shapes.items()}
    values = choose("measure", "layer_statistics")(Weights("a@1", weights))
    assert len(values) == 152 * 7 == 1064
    assert list(values)[:7] == [
        f"cls_token/{statistic}"
        for statistic in (
            "mean",
            "variance",
            "percentile_0",
            "percentile_25",
            "percentile_50",
            "percentile_75",
            "percentile_100",
        )
    ]


def test_numbers_are_numpys(subject):
    weights = Weights("a@1", subject.model.state_dict())
    values = choose("measure", "layer_statistics", percentiles=[1, 50, 99.5])(weights)
    assert len(values) == 5 * len(weights)
    for name, tensor in weights.items():
        found = [values[key] for key in values if key.startswith(f"{name}/")]
        numbers = tensor.double().numpy()
        expected = [numbers.mean(), numbers.var(), *np.percentile(numbers, [1, 50, 99.5])]
        assert found == pytest.approx(expected, rel=1e-12)


def test_impossible_percentiles_and_bad_weights_are_refused():
    with pytest.raises(InvalidConfig, match="percentiles"):
        choose("measure", "layer_statistics", percentiles=[101])
    with pytest.raises(NotApplicable, match="a@1: w has entries that are not finite"):
        choose("measure", "layer_statistics")(Weights("a@1", {"w": torch.tensor([torch.inf])}))
