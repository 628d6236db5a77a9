"""Layer statistics are those of numpy, tensor by tensor."""

import numpy as np
import pytest
import torch

from vitarium.core.errors import InvalidInput, NotApplicable
from vitarium.core.registry import choose
from vitarium.evaluation.inputs import Weights

GENERATOR = torch.Generator().manual_seed(0)
TENSORS = {
    "matrix": torch.randn(7, 5, generator=GENERATOR),
    "bias": torch.randn(3, generator=GENERATOR, dtype=torch.float64),
    "half": torch.randn(4, 2, 2, generator=GENERATOR).bfloat16(),
    "scalar": torch.tensor(2.5),
    "index": torch.arange(4),
    "empty": torch.zeros(0),
}


@pytest.mark.parametrize("percentiles", [(0, 25, 50, 75, 100), (1, 33.3, 99), ()])
def test_they_are_numpys(percentiles):
    encoder = choose("weight_encoder", "layer_quantiles", percentiles=percentiles)
    expected = []
    for name in ("matrix", "bias", "half", "scalar"):
        numbers = TENSORS[name].double().numpy().ravel()
        expected += [numbers.mean(), numbers.var(), *np.percentile(numbers, percentiles)]
    vector = encoder(Weights("model", TENSORS))
    assert vector.numpy() == pytest.approx(np.array(expected), rel=1e-12, abs=1e-15)


def test_what_has_no_weights_or_percentiles_is_refused():
    encoder = choose("weight_encoder", "layer_quantiles")
    with pytest.raises(NotApplicable, match="model: its backbone has no weights"):
        encoder(Weights("model", {"index": torch.arange(4)}))
    with pytest.raises(InvalidInput, match="less than or equal to 100"):
        choose("weight_encoder", "layer_quantiles", percentiles=[101])
