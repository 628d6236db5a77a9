"""sparsity: the share of weights that are as good as zero."""

import pytest
import torch

from vitarium.core.config import InvalidConfig
from vitarium.core.errors import NotApplicable
from vitarium.core.registry import choose
from vitarium.evaluation.inputs import Weights

WEIGHTS = Weights(
    "a@1", {"w": torch.tensor([[0.0, 1e-3], [-0.5, 2.0]]), "b": torch.tensor([-5e-4, 0.3])}
)


def test_shares_are_counted_for_every_threshold():
    assert choose("measure", "sparsity", thresholds=[0, 1e-3, 0.5])(WEIGHTS) == {
        "0": 1 / 6,
        "1e-3": 3 / 6,
        "5e-1": 5 / 6,
        "w/0": 1 / 4,
        "w/1e-3": 2 / 4,
        "w/5e-1": 3 / 4,
        "b/0": 0,
        "b/1e-3": 1 / 2,
        "b/5e-1": 1,
    }


def test_a_trained_models_share_grows_with_the_threshold(subject):
    values = choose("measure", "sparsity")(Weights("a@1", subject.model.state_dict()))
    assert 0 <= values["0"] <= values["1e-3"] < values["1e-2"] < 1


def test_bad_thresholds_and_models_without_weights_are_refused():
    for thresholds in ([], [-1e-3]):
        with pytest.raises(InvalidConfig, match="thresholds"):
            choose("measure", "sparsity", thresholds=thresholds)
    with pytest.raises(NotApplicable, match="a@1 has no weights"):
        choose("measure", "sparsity")(Weights("a@1", {"count": torch.tensor(3)}))
