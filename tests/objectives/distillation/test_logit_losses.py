"""Distillation from logits: mean squared difference, normalized KD, and KL's limit between them."""

import pytest
import torch
from torch import nn

from vitarium.core.errors import InvalidInput
from vitarium.core.registry import choose, get
from vitarium.data.batch import Batch
from vitarium.objectives.distillation.base import OUTPUTS

CLASSES = 5


class Logits(nn.Module):
    """A model whose outputs are a parameter."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, images):
        return self.logits


def random_logits(seed, scale=1.0):
    stream = torch.Generator().manual_seed(seed)
    return scale * torch.randn(6, CLASSES, generator=stream, dtype=torch.float64)


def loss(name, student, teacher, **settings):
    labels = torch.arange(len(student)) % CLASSES
    targets = torch.eye(CLASSES, dtype=torch.float64)[labels]
    batch = Batch(torch.zeros(len(student), 1, 1, 1), labels, targets, {OUTPUTS: teacher})
    return choose("objective", name, **settings)(Logits(student), batch).value


def brute_force_nkd(student, teacher, gamma, temperature):
    total = 0.0
    for row, (s, t) in enumerate(zip(student, teacher, strict=True)):
        y = row % CLASSES
        rest = [k for k in range(CLASSES) if k != y]
        p, q = (z.exp() / z.exp().sum() for z in (t, s))
        total += -p[y] * q[y].log()
        n_t, n_s = ((z[rest] / temperature).exp() for z in (t, s))
        n_t, n_s = n_t / n_t.sum(), n_s / n_s.sum()
        total += -gamma * temperature**2 * (n_t * n_s.log()).sum()
    return total / len(student)


def test_logit_mse_is_the_mean_over_all_entries():
    student, teacher = random_logits(1), random_logits(2)
    expected = sum((a - b) ** 2 for a, b in zip(student.flatten(), teacher.flatten(), strict=True))
    assert torch.allclose(loss("logit_mse", student, teacher), expected / 30, rtol=1e-12)


@pytest.mark.parametrize(("gamma", "temperature"), [(1.5, 1.0), (0.0, 1.0), (2.0, 4.0)])
def test_nkd_is_that_of_the_paper_class_by_class(gamma, temperature):
    student, teacher = random_logits(1, 3.0), random_logits(2, 3.0)
    value = loss("nkd", student, teacher, gamma=gamma, temperature=temperature)
    expected = brute_force_nkd(student, teacher, gamma, temperature)
    assert torch.allclose(value, expected, rtol=1e-12)


def test_nkd_adds_the_classes_with_their_weight():
    student, teacher = random_logits(1), random_logits(2)
    labels = torch.arange(6) % CLASSES
    plain = nn.functional.cross_entropy(student, labels)
    difference = loss("nkd", student, teacher, class_weight=0.7) - loss("nkd", student, teacher)
    assert torch.allclose(difference, 0.7 * plain, rtol=1e-12)


def test_nkd_has_finite_gradients():
    model = Logits(random_logits(1, 30.0))
    labels = torch.arange(6) % CLASSES
    targets = torch.eye(CLASSES, dtype=torch.float64)[labels]
    batch = Batch(torch.zeros(6, 1, 1, 1), labels, targets, {OUTPUTS: random_logits(2, 30.0)})
    choose("objective", "nkd")(model, batch).value.backward()
    assert model.logits.grad.isfinite().all()


def test_nkd_needs_a_class_beside_the_target():
    with pytest.raises(InvalidInput, match="two classes"):
        get("objective", "nkd").facts["outputs"](None, 1)


@pytest.mark.parametrize("name", ["logit_mse", "soft_distillation"])
def test_a_student_like_its_teacher_has_no_loss(name):
    settings = {"alpha": 1.0, "temperature": 3.0} if name == "soft_distillation" else {}
    same = random_logits(1)
    assert abs(loss(name, same, same.clone(), **settings).item()) < 1e-14


def test_at_high_temperature_kl_is_half_the_squared_difference_of_centered_logits():
    student, teacher = random_logits(1), random_logits(2)
    centered = [z - z.mean(1, keepdim=True) for z in (student, teacher)]
    limit = (centered[0] - centered[1]).square().mean() / 2
    by_temperature = [
        loss("soft_distillation", student, teacher, alpha=1.0, temperature=t).item()
        for t in (1.0, 20.0, 1e3, 1e4)
    ]
    assert by_temperature[-1] == pytest.approx(limit.item(), rel=1e-3)
    errors = [abs(value - limit.item()) for value in by_temperature]
    assert errors == sorted(errors, reverse=True)


def test_a_constant_counts_for_the_mean_squared_difference_alone():
    student, teacher = random_logits(1), random_logits(2)
    constants = torch.arange(6, dtype=torch.float64).unsqueeze(1)
    for name, settings in (("soft_distillation", {"alpha": 1.0}), ("nkd", {})):
        before, after = (
            loss(name, s, teacher, **settings).item() for s in (student, student + constants)
        )
        assert before == pytest.approx(after, rel=1e-12)
    assert loss("logit_mse", student + constants, teacher) > loss("logit_mse", student, teacher) + 1
