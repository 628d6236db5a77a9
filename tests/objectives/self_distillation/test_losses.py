"""Losses and targets of self-distillation: closed forms, published values, and a brute force."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from vitarium.objectives.self_distillation._losses import (
    centered_targets,
    cross_view_loss,
    entropy_share,
    koleo_loss,
    patch_loss,
    sinkhorn_targets,
)

TEMPERATURE = torch.tensor(0.07)
K = 12


def normal(*shape, seed=0, scale=1.0):
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def log_probabilities(logits, temperature=0.1):
    return (logits / temperature).log_softmax(-1)


def reference_sinkhorn(logits, temperature, rounds=3):
    """The published form, in numpy's float64: exponentials, columns, rows."""
    q = np.exp(logits.double().numpy() / temperature).T
    k, n = q.shape
    q /= q.sum()
    for _ in range(rounds):
        q /= q.sum(1, keepdims=True) * k
        q /= q.sum(0, keepdims=True) * n
    return (q * n).T


def test_zero_logits_give_log_k():
    targets = centered_targets(torch.zeros(2, 3, K), torch.zeros(K), TEMPERATURE)
    loss = cross_view_loss(targets, log_probabilities(torch.zeros(4, 3, K)))
    assert loss.item() == pytest.approx(math.log(K), rel=1e-6)
    masks = torch.ones(6, 5, dtype=torch.bool)
    loss = patch_loss(torch.full((6, 5, K), 1 / K), log_probabilities(torch.zeros(6, 5, K)), masks)
    assert loss.item() == pytest.approx(math.log(K), rel=1e-6)
    assert entropy_share(targets).item() == pytest.approx(1, rel=1e-6)


def test_the_loss_is_at_least_the_entropy_of_the_targets_and_reaches_it():
    """By a student with the teacher's logits in the proportion of the temperatures."""
    logits = normal(1, 5, K).expand(2, -1, -1)
    targets = centered_targets(logits, torch.zeros(K), TEMPERATURE)
    entropy = entropy_share(targets).item() * math.log(K)
    equal = cross_view_loss(targets, log_probabilities(logits * 0.1 / TEMPERATURE))
    assert equal.item() == pytest.approx(entropy, rel=1e-5)
    for seed in range(5):
        other = cross_view_loss(targets, log_probabilities(normal(3, 5, K, seed=seed)))
        assert other > entropy


def test_cross_view_loss_is_the_mean_over_pairs_of_views_that_differ():
    teacher, student = normal(2, 3, K), normal(5, 3, K, seed=1)
    targets = centered_targets(teacher, normal(K, seed=2), TEMPERATURE)
    terms = []
    for g, target in enumerate(targets.double().numpy()):
        for v, logits in enumerate(student.double().numpy()):
            if g != v:
                scaled = logits / 0.1
                scaled -= scaled.max(1, keepdims=True)
                log_p = scaled - np.log(np.exp(scaled).sum(1, keepdims=True))
                terms.append(np.mean([-(target[b] * log_p[b]).sum() for b in range(3)]))
    assert len(terms) == 2 * 5 - 2
    loss = cross_view_loss(targets, log_probabilities(student))
    assert loss.item() == pytest.approx(np.mean(terms), rel=1e-5)


def test_exchanging_the_global_views_leaves_the_loss():
    targets = centered_targets(normal(2, 3, K), torch.zeros(K), TEMPERATURE)
    student = log_probabilities(normal(4, 3, K, seed=1))
    exchanged = cross_view_loss(targets.flip(0), student[[1, 0, 2, 3]])
    assert exchanged.item() == pytest.approx(cross_view_loss(targets, student).item(), rel=1e-6)


def test_centered_targets_ignore_a_number_added_to_all_logits_of_a_sample():
    logits, center = normal(4, K), normal(K, seed=1)
    added = centered_targets(logits + normal(4, 1, seed=2), center, TEMPERATURE)
    torch.testing.assert_close(added, centered_targets(logits, center, TEMPERATURE))
    bias = normal(K, seed=3)
    absorbed = centered_targets(logits + bias, center + bias, TEMPERATURE)
    torch.testing.assert_close(absorbed, centered_targets(logits, center, TEMPERATURE))


def test_sinkhorn_is_its_published_form():
    logits = normal(9, K, scale=0.2)
    targets = sinkhorn_targets(logits, TEMPERATURE)
    np.testing.assert_allclose(targets, reference_sinkhorn(logits, 0.07), atol=1e-6)
    torch.testing.assert_close(targets.sum(1), torch.ones(9))


def test_sinkhorn_balances_prototypes_about():
    mass = sinkhorn_targets(normal(64, K, scale=0.2), TEMPERATURE).sum(0) / (64 / K)
    assert mass.min() > 0.4
    assert mass.max() < 1.3


def test_sinkhorn_ignores_a_constant_per_prototype_and_about_one_per_sample():
    logits = normal(16, K, scale=0.2).double()
    targets = sinkhorn_targets(logits, TEMPERATURE)
    of_prototype = sinkhorn_targets(logits + normal(K, seed=1), TEMPERATURE)
    torch.testing.assert_close(of_prototype, targets, atol=2e-5, rtol=0)
    of_sample = sinkhorn_targets(logits + normal(16, 1, seed=2, scale=0.02), TEMPERATURE)
    difference = (of_sample - targets).abs().max()
    assert 1e-6 < difference < 0.05


def test_sinkhorn_takes_large_logits_and_a_batch_of_one_gives_uniform_targets():
    large = sinkhorn_targets(torch.tensor([[100.0, 0.0], [0.0, -100.0]]), torch.tensor(0.04))
    assert large.isfinite().all()
    alone = sinkhorn_targets(normal(1, K), TEMPERATURE)
    torch.testing.assert_close(alone, torch.full((1, K), 1 / K))


def test_sinkhorn_shares_prototypes_out_between_counted_rows_alone():
    logits, counted = normal(10, K), torch.arange(10) % 3 == 0
    targets = sinkhorn_targets(logits, TEMPERATURE, counted)
    torch.testing.assert_close(targets[counted], sinkhorn_targets(logits[counted], TEMPERATURE))
    assert sinkhorn_targets(logits, TEMPERATURE, torch.zeros(10, dtype=torch.bool)).isfinite().all()


def test_patch_loss_counts_masked_patches_and_all_crops():
    """Half of the crops masked: half the loss of these (in DINOv2 an effective weight of 0.5)."""
    targets = normal(4, 6, K).softmax(-1)
    student = log_probabilities(normal(4, 6, K, seed=1))
    masks = torch.rand(4, 6, generator=torch.Generator().manual_seed(2)) < 0.5
    masks[2:] = False
    by_crop = []
    for crop in range(4):
        entropies = [
            -(targets[crop, n].double() * student[crop, n].double()).sum().item()
            for n in range(6)
            if masks[crop, n]
        ]
        by_crop.append(np.mean(entropies) if entropies else 0.0)
    loss = patch_loss(targets, student, masks)
    assert loss.item() == pytest.approx(np.mean(by_crop), rel=1e-5)
    masked_alone = patch_loss(targets[:2], student[:2], masks[:2])
    assert loss.item() == pytest.approx(0.5 * masked_alone.item(), rel=1e-5)
    assert patch_loss(targets, student, torch.zeros_like(masks)) == 0


def test_koleo_of_duplicates_and_of_orthogonal_rows():
    duplicates = F.normalize(normal(1, 384), dim=1).expand(4, -1)
    assert koleo_loss(duplicates).item() == pytest.approx(15.4, abs=0.05)
    assert koleo_loss(torch.eye(8)).item() == pytest.approx(-math.log(math.sqrt(2)), abs=1e-5)


def test_koleo_takes_an_antipodal_neighbor_and_not_the_row_itself():
    pair = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert koleo_loss(pair).item() == pytest.approx(-math.log(2), abs=1e-5)


def test_koleo_is_its_brute_force_and_ignores_the_length_of_rows():
    features = normal(7, 5)
    unit = (features / features.norm(dim=1, keepdim=True)).double().numpy()
    total = 0.0
    for i in range(7):
        nearest = max((j for j in range(7) if j != i), key=lambda j: unit[i] @ unit[j])
        total -= math.log(np.linalg.norm(unit[i] - unit[nearest]))
    assert koleo_loss(features).item() == pytest.approx(total / 7, rel=1e-4)
    scaled = koleo_loss(features * torch.rand(7, 1).add(0.5))
    assert scaled.item() == pytest.approx(koleo_loss(features).item(), rel=1e-4)
