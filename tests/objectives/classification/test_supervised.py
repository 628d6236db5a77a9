"""Supervised learning with hard, soft and smoothed targets."""

import pytest
import torch
from timm.data.mixup import mixup_target
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch import nn
from torch.nn import functional as F

from vitarium.core.config import InvalidConfig
from vitarium.core.registry import section
from vitarium.data.batch import Batch


class Fixed(nn.Module):
    """Gives images as outputs, whatever they are."""

    def forward(self, images):
        return images


def batch(outputs, labels, targets=None) -> Batch:
    soft = F.one_hot(labels, outputs.shape[1]).float() if targets is None else targets
    return Batch(outputs, labels, soft)


OUTPUTS, LABELS = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 4


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.8])
def test_hard_targets_are_timms_label_smoothing(smoothing):
    objective = section("objective", {"name": "supervised", "label_smoothing": smoothing})
    loss = objective(Fixed(), batch(OUTPUTS, LABELS))
    assert torch.allclose(loss.value, LabelSmoothingCrossEntropy(smoothing)(OUTPUTS, LABELS))


@pytest.mark.parametrize("share", [1.0, 0.7])
def test_smoothing_mixed_targets_is_timms_mixing_of_smoothed_ones(share):
    mixed = mixup_target(LABELS, 4, share, smoothing=0.0)
    theirs = SoftTargetCrossEntropy()(OUTPUTS, mixup_target(LABELS, 4, share, smoothing=0.1))
    ours = section("objective", {"name": "supervised", "label_smoothing": 0.1})
    assert torch.allclose(ours(Fixed(), batch(OUTPUTS, LABELS, mixed)).value, theirs)


def test_scores_are_means_over_all_images_not_over_batches():
    objective = section("objective", "supervised")
    batches = [batch(OUTPUTS[:5], LABELS[:5]), batch(OUTPUTS[5:], LABELS[5:])]
    evaluate = objective.plugin.facts["evaluate"]
    found = evaluate(objective.config, Fixed(), lambda split, limit: iter(batches), ["val"])["val"]
    assert found["loss"] == pytest.approx(F.cross_entropy(OUTPUTS, LABELS).item())
    assert found["accuracy"] == pytest.approx((OUTPUTS.argmax(1) == LABELS).float().mean().item())


def test_full_smoothing_is_refused():
    with pytest.raises(InvalidConfig, match="label_smoothing: 1 is not less than 1"):
        section("objective", {"name": "supervised", "label_smoothing": 1})
