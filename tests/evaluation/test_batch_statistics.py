"""Statistics of batch normalizations: of mixtures, and counted anew."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from vitarium.evaluation.batch_statistics import (
    counting,
    has_statistics,
    is_statistic,
    joined,
    recount_on,
    statistics_of,
)
from vitarium.evaluation.inputs import Weights


def weights(name, rows):
    """Statistics of rows [n, channels], as a batch normalization would have them."""
    return Weights(
        name,
        {
            "norm.weight": torch.ones(rows.shape[1]),
            "norm.running_mean": torch.tensor(rows.mean(0)),
            "norm.running_var": torch.tensor(rows.var(0)),
            "norm.num_batches_tracked": torch.tensor(len(rows)),
        },
    )


@pytest.mark.parametrize("counts", [(100, 100), (50, 150), (30, 0)])
def test_joined_statistics_are_those_of_all_that_was_seen(counts):
    noise = np.random.default_rng(0)
    rows = [noise.normal(3 * n, 1 + n, (max(count, 1), 4)) for n, count in enumerate(counts)]
    shares = [count / sum(counts) for count in counts]
    rows_of_all = np.concatenate([part for part, count in zip(rows, counts, strict=True) if count])
    models = [weights(str(n), part) for n, part in enumerate(rows)]
    statistics = joined(models, shares)
    assert set(statistics) == set(filter(is_statistic, models[0]))
    np.testing.assert_allclose(statistics["norm.running_mean"], rows_of_all.mean(0))
    np.testing.assert_allclose(statistics["norm.running_var"], rows_of_all.var(0))
    assert statistics["norm.num_batches_tracked"] == max(map(len, rows))


def test_a_single_share_gives_that_models_statistics_bit_for_bit():
    noise = np.random.default_rng(1)
    models = [weights(str(n), noise.normal(n, 1, (9, 4))) for n in range(2)]
    statistics = joined(models, [0.0, 1.0])
    for name in ("norm.running_mean", "norm.running_var"):
        assert torch.equal(statistics[name], models[1][name])


def model():
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Dropout(0.5), nn.Conv2d(3, 2, 3)]
    return nn.Sequential(*layers, nn.BatchNorm2d(2, momentum=0.3)).eval()


def test_statistics_are_counted_as_torch_does_after_averaging():
    batches = [2 + torch.randn(8, 1, 8, 8) for _ in range(5)]
    ours, expected = model(), model()
    expected[2] = nn.Identity()  # update_bn drops entries, as in training
    update_bn(batches, expected)
    recount_on(ours, batches)
    for name, tensor in statistics_of(ours).items():
        torch.testing.assert_close(tensor, expected.state_dict()[name])
    assert ours[4].momentum == 0.3
    assert not any(layer.training for layer in ours.modules())


def test_a_model_without_batch_normalization_is_not_run():
    plain = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    recount_on(plain, iter(lambda: pytest.fail("it is run"), None))
    assert not has_statistics(plain)
    assert counting(plain) is plain


def test_a_model_that_counts_is_a_copy():
    origin = model()
    before = deepcopy(origin.state_dict())
    counting(origin)(torch.randn(4, 1, 8, 8))
    assert all(torch.equal(tensor, before[name]) for name, tensor in origin.state_dict().items())
