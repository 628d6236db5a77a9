"""Super-classes: groups of classes that a classifier confuses."""

import numpy as np
import pytest
import torch
from sklearn.cluster import SpectralClustering

from vitarium.core.errors import NotApplicable
from vitarium.evaluation.inputs import Predictions
from vitarium.measures.predictions.super_classes import (
    SuperClasses,
    confusion_groups,
    super_classes,
)


def confusions(groups, seed=0, between=2, within=20):
    """Counts that are large inside of groups."""
    noise = np.random.default_rng(seed)
    groups = np.array(groups)
    alike = groups[:, None] == groups[None]
    counts = np.where(
        alike, noise.poisson(within, alike.shape), noise.poisson(between, alike.shape)
    )
    np.fill_diagonal(counts, 500)
    return counts


@pytest.mark.parametrize("groups", [[0, 0, 1, 1, 2, 2], [0, 1, 0, 2, 1, 2, 0, 1, 3, 3, 2, 0]])
def test_planted_groups_are_recovered_in_the_order_of_their_first_classes(groups):
    assert confusion_groups(confusions(groups), max(groups) + 1).tolist() == groups


def test_they_are_those_of_scikit_learn():
    counts = confusions([0, 1, 0, 2, 1, 2, 0, 1, 2, 0], within=8, between=3, seed=3)
    weights = (counts + counts.T).astype(float)
    np.fill_diagonal(weights, 0)
    weights += 1e-3 * weights.sum() / weights.size
    reference = SpectralClustering(
        3, affinity="precomputed", assign_labels="cluster_qr", random_state=0
    ).fit_predict(weights)
    ours = confusion_groups(counts, 3)
    assert np.array_equal(ours[:, None] == ours, reference[:, None] == reference)


def test_the_order_of_classes_does_not_count():
    counts = confusions([0, 0, 0, 1, 1, 1, 2, 2], seed=1)
    order = np.random.default_rng(2).permutation(len(counts))
    before, after = confusion_groups(counts, 3), confusion_groups(counts[order][:, order], 3)
    assert np.array_equal((before[:, None] == before)[order][:, order], after[:, None] == after)


def predicted(pairs, classes):
    labels, answers = torch.tensor(pairs).T
    logits = torch.nn.functional.one_hot(answers, classes).float()
    return Predictions(logits, labels, tuple("abcd"[:classes]))


def test_values_are_the_groups_and_the_share_of_confusions_inside_of_them():
    pairs = [(0, 2)] * 4 + [(2, 0)] * 3 + [(1, 3)] * 5 + [(3, 1)] * 3 + [(0, 1), (1, 1)]
    values = super_classes(SuperClasses(num_groups=2), predicted(pairs, 4))
    assert values[""] == 15 / 16
    assert [values[f"expert/{name}"] for name in "abcd"] == [0, 1, 0, 1]


def test_without_confusions_and_with_too_many_groups_there_is_no_value():
    with pytest.raises(NotApplicable, match="no image is wrong"):
        super_classes(SuperClasses(num_groups=2), predicted([(0, 0), (1, 1)], 2))
    with pytest.raises(NotApplicable, match="4 classes make no 5 groups"):
        super_classes(SuperClasses(num_groups=5), predicted([(0, 1)], 4))
