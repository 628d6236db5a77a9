"""Gram anchoring: invariants, the order of reducing and normalizing, and when its teacher changes."""

import pytest
import torch
from torch.nn import functional as F

from vitarium.objectives.companions import MomentumTeacher, Progress
from vitarium.objectives.self_distillation._gram import (
    GramAnchoring,
    GramTeacher,
    gram_loss,
    is_update,
    reduced_map,
)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def rotation(width, seed=5):
    return torch.linalg.qr(normal(width, width, seed=seed).double())[0].float()


STUDENT, ANCHOR = normal(3, 10, 16), normal(3, 10, 16, seed=1)


def test_gram_loss_is_its_brute_force():
    total = 0.0
    for image, anchor in zip(STUDENT.double(), ANCHOR.double(), strict=True):
        for i in range(10):
            for j in range(10):
                own = F.cosine_similarity(image[i], image[j], dim=0)
                total += (own - F.cosine_similarity(anchor[i], anchor[j], dim=0)).item() ** 2
    assert gram_loss(STUDENT, ANCHOR).item() == pytest.approx(total / (3 * 100), rel=1e-5)


def test_gram_loss_ignores_rotations_and_lengths_and_not_shifts():
    assert gram_loss(STUDENT, STUDENT) == 0
    loss = gram_loss(STUDENT, ANCHOR).item()
    assert gram_loss(STUDENT @ rotation(16), ANCHOR).item() == pytest.approx(loss, rel=1e-4)
    lengths = torch.rand(3, 10, 1) + 0.5
    assert gram_loss(STUDENT * lengths, ANCHOR).item() == pytest.approx(loss, rel=1e-4)
    assert abs(gram_loss(STUDENT + 1, ANCHOR).item() - loss) > 0.01


def test_gram_loss_of_patches_in_another_order():
    order = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    loss = gram_loss(STUDENT, ANCHOR).item()
    assert gram_loss(STUDENT[:, order], ANCHOR[:, order]).item() == pytest.approx(loss, rel=1e-4)
    assert abs(gram_loss(STUDENT[:, order], ANCHOR).item() - loss) > 1e-3


def test_widths_may_differ_and_independent_features_give_the_sum_of_their_inverses():
    assert gram_loss(normal(2, 9, 32), normal(2, 9, 96, seed=1)) > 0
    independent = gram_loss(normal(8, 200, 32), normal(8, 200, 32, seed=1))
    assert independent.item() == pytest.approx(1 / 32 + 1 / 32, rel=0.05)


def test_negatives_are_clamped_in_both():
    assert gram_loss(STUDENT, STUDENT, clamp_negatives=True) == 0
    opposed = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]])
    right = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    assert gram_loss(opposed, right) > 0
    assert gram_loss(opposed, right, clamp_negatives=True) == 0


def test_larger_maps_are_reduced_before_they_are_normalized():
    larger = normal(2, 64, 32)
    reduced = reduced_map(larger, (8, 8), (4, 4))
    expected = F.interpolate(
        larger.transpose(1, 2).reshape(2, 32, 8, 8), (4, 4), mode="bicubic", align_corners=False
    )
    torch.testing.assert_close(reduced, expected.flatten(2).transpose(1, 2))
    assert reduced_map(larger, (8, 8), (8, 8)) is larger
    student = normal(2, 16, 32, seed=1)
    other_order = reduced_map(
        F.normalize(larger * normal(2, 64, 1, seed=2).exp(), dim=-1), (8, 8), (4, 4)
    )
    ours = reduced_map(larger * normal(2, 64, 1, seed=2).exp(), (8, 8), (4, 4))
    assert gram_loss(ours, other_order) > 0.005
    assert gram_loss(student, ours) != gram_loss(student, other_order)


@pytest.mark.parametrize(
    ("settings", "epochs"),
    [
        ({"from_epoch": 4}, [3]),
        ({"from_epoch": 4, "update_every": 2}, [3, 5, 7, 9]),
        ({"from_epoch": 4, "update_every": 1, "max_updates": 2}, [3, 4, 5]),
        ({"from_epoch": 1, "update_every": 5, "max_updates": 1}, [5]),
    ],
)
def test_when_the_gram_teacher_is_replaced(settings, epochs):
    config = GramAnchoring(**settings)
    assert [epoch for epoch in range(1, 20) if is_update(config, epoch)] == epochs


def test_the_gram_teacher_becomes_the_momentum_teacher_and_the_loss_begins():
    from vitarium import create_model

    small = {"img_size": 8, "patch_size": 4, "embed_dim": 8, "depth": 1, "num_heads": 1}
    first, second = (create_model("vit", num_classes=2, **small) for _ in range(2))
    gram = GramTeacher(GramAnchoring(from_epoch=3, weight=1.5), first)
    weights, is_second = [], []
    for epoch in range(1, 5):
        for step in range(2):
            progress = Progress(epoch, epochs=4, step=2 * (epoch - 1) + step, steps=8)
            gram.before_step(progress)
            weights.append(gram.weight.item())
            gram.after_step(MomentumTeacher(second), progress)
            pairs = zip(gram.teacher.parameters(), second.parameters(), strict=True)
            is_second.append(all(torch.equal(own, other) for own, other in pairs))
    assert weights == [0] * 4 + [1.5] * 4
    assert is_second == [False] * 3 + [True] * 5
