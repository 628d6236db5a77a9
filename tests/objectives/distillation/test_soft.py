"""Distillation from probabilities: the teacher's term, its limits, and what does not count."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vitarium.core.config import InvalidConfig
from vitarium.core.errors import InvalidInput
from vitarium.core.registry import choose
from vitarium.data.batch import Batch
from vitarium.objectives.distillation.base import OUTPUTS


def batch(reference, *, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(len(reference), 1, 2, 2, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, reference.shape[1], (len(reference),), generator=generator)
    return Batch(
        images, labels, F.one_hot(labels, reference.shape[1]).double(), {OUTPUTS: reference}
    )


def logits(*shape, seed=1):
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 5)).double()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_the_loss_is_that_of_hinton_term_by_term(model, alpha, temperature):
    given = batch(logits(6, 5))
    outputs = model(given.images)
    expected = 0.0
    for row, reference, label in zip(
        outputs, given.teacher_outputs[OUTPUTS], given.labels, strict=True
    ):
        own, teacher = (torch.softmax(one / temperature, 0) for one in (row, reference))
        divergence = sum(q * (q.log() - p.log()) for p, q in zip(own, teacher, strict=True))
        expected += (1 - alpha) * -torch.softmax(row, 0)[label].log() / 6
        expected += alpha * temperature**2 * divergence / 6
    chosen = choose("objective", "soft_distillation", alpha=alpha, temperature=temperature)
    assert torch.allclose(chosen(model, given).value, expected, rtol=1e-12)


def test_at_equal_outputs_the_teachers_term_is_zero(model):
    images = batch(logits(6, 5)).images
    given = Batch(images, torch.zeros(6).long(), torch.eye(5)[:1].repeat(6, 1).double())
    given = Batch(given.images, given.labels, given.targets, {OUTPUTS: model(images).detach()})
    loss = choose("objective", "soft_distillation", alpha=1.0, temperature=2.0)(model, given)
    loss.value.backward()
    assert abs(loss.value.item()) < 1e-15
    assert all(weight.grad.abs().max() < 1e-15 for weight in model.parameters())


def test_at_alpha_1_the_classes_do_not_count(model):
    chosen, reference = choose("objective", "soft_distillation", alpha=1.0), logits(6, 5)
    one, other = batch(reference), batch(reference)
    other = Batch(one.images, other.labels.flip(0), other.targets.flip(0), other.teacher_outputs)
    assert not torch.equal(one.targets, other.targets)
    assert torch.equal(chosen(model, one).value, chosen(model, other).value)


def test_the_teachers_term_is_of_float32_under_autocast(model):
    model = model.float()
    given = batch(logits(6, 5))
    given = Batch(
        given.images.float(),
        given.labels,
        given.targets.float(),
        {OUTPUTS: logits(6, 5).bfloat16()},
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert choose("objective", "soft_distillation")(model, given).value.dtype == torch.float32


def test_a_batch_without_a_teachers_words_is_refused(model):
    given = batch(logits(6, 5))
    with pytest.raises(InvalidInput, match="teacher"):
        choose("objective", "soft_distillation")(
            model, Batch(given.images, given.labels, given.targets)
        )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": 1.5}, "alpha"),
        ({"temperature": 0}, "temperature"),
        ({"teacher": "a/b.safetensors"}, "teacher_architecture"),
        ({"teacher_architecture": "vit"}, "file of weights"),
        ({"teacher": "./folder", "teacher_head": "mlp"}, "hidden_dim"),
        ({"teacher_sha256": "a" * 64}, "is for a file"),
        ({"teacher": "./folder", "teacher_sha256": "abc"}, "teacher_sha256"),
        ({"teacher": ""}, "teacher"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(InvalidConfig, match=message):
        choose("objective", "soft_distillation", **settings)
