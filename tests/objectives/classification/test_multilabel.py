"""Binary cross-entropy with each class, and mean average precision."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vitarium.core.errors import InvalidData
from vitarium.core.registry import choose
from vitarium.data.batch import Batch
from vitarium.objectives._average_precision import mean_average_precision
from vitarium.objectives._feature_scores import LinearProbe
from vitarium.objectives._nearest_neighbors import knn_votes


def drawn(classes=4, images=60):
    source = torch.Generator().manual_seed(0)
    labels = torch.rand(images, classes, generator=source) < 0.4
    scores = torch.randn(images, classes, generator=source).round(decimals=1) + labels
    return scores, labels


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_loss_is_a_sigmoid_for_each_class(reduction):
    outputs, labels = drawn()
    batch = Batch(outputs, labels, labels.float())
    loss = choose("objective", "multilabel", reduction=reduction)(nn.Identity(), batch).value
    p, y = outputs.double().sigmoid(), labels.double()
    losses = -(y * p.log() + (1 - y) * (1 - p).log())
    expected = losses.mean() if reduction == "mean" else losses.sum() / len(labels)
    torch.testing.assert_close(loss.double(), expected)


def test_average_precision_is_that_of_its_definition():
    """Sum of precision times the rise of recall, over thresholds; ties are one threshold."""
    scores, labels = drawn()
    expected = []
    for of_class, has in zip(scores.T.numpy(), labels.T.numpy(), strict=True):
        recall_before = total = 0.0
        for threshold in np.unique(of_class)[::-1]:
            chosen = of_class >= threshold
            recall = has[chosen].sum() / has.sum()
            total += has[chosen].mean() * (recall - recall_before)
            recall_before = recall
        expected.append(total)
    assert mean_average_precision(scores, labels) == pytest.approx(np.mean(expected))


def test_labels_that_no_image_has_do_not_count():
    scores, labels = drawn()
    without = labels.clone()
    without[:, 1] = False
    present = [0, 2, 3]
    expected = mean_average_precision(scores[:, present], labels[:, present])
    assert mean_average_precision(scores, without) == pytest.approx(expected)
    with pytest.raises(InvalidData, match="none of the images"):
        mean_average_precision(scores, torch.zeros_like(labels))


def test_images_of_one_label_have_an_accuracy_too():
    outputs = torch.eye(3)[[0, 1, 2, 2]]
    labels = torch.tensor([0, 1, 2, 0])
    batch = Batch(outputs, labels, F.one_hot(labels, 3).float())
    section = choose("objective", "multilabel")
    scores = section.plugin.facts["evaluate"](
        section.config, nn.Identity(), lambda split, limit: iter([batch]), ["val"]
    )["val"]
    assert scores["accuracy"] == 0.75
    assert scores["map"] == pytest.approx((0.75 + 1 + 0.5) / 3, abs=0.1)


@pytest.mark.parametrize(("bias", "probability"), [(-6.9, 1 / 1000), (-10, 4.5e-5)])
def test_a_head_begins_at_the_probability_of_its_bias(bias, probability):
    model = choose("architecture", "vit", img_size=8, patch_size=4, embed_dim=8, depth=1,
                   num_heads=1)(5)  # fmt: skip
    for name, settings in (("linear", {}), ("mlp", {"hidden_dim": 4})):
        choose("head", name, initial_bias=bias, **settings)(model, 1000)
        last = [m for m in model.head.modules() if isinstance(m, nn.Linear)][-1]
        assert last.bias.sigmoid().mean().item() == pytest.approx(probability, rel=0.01)
        assert len(last.bias.unique()) == 1


def test_neighbors_vote_for_each_of_their_labels():
    bank = torch.eye(3)
    labels = torch.tensor([[True, True], [True, False], [False, False]])
    votes = knn_votes(bank, labels, torch.tensor([[1.0, 1.0, 0.0]]), k=2)
    torch.testing.assert_close(votes, torch.tensor([[1.0, 0.5]]))


def test_a_probe_of_several_labels_is_a_regression_for_each():
    source = torch.Generator().manual_seed(1)
    features = torch.randn(80, 5, generator=source)
    labels = features[:, :3] + 0.3 * torch.randn(80, 3, generator=source) > 0
    together = LinearProbe(features, labels)(features)
    for column in range(3):
        single = LinearProbe(features, labels[:, column].long())
        assert torch.equal((together[:, column] > 0).long(), single(features))
