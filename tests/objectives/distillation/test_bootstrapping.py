"""Bootstrapping: features that take the direction of a teacher's, and its head."""

import pytest
import torch

from vitarium import create_model
from vitarium.architectures.features import features
from vitarium.core.errors import InvalidInput
from vitarium.core.registry import choose, get
from vitarium.data.batch import Batch

SIZES = {"img_size": 8, "patch_size": 4, "in_chans": 1, "num_heads": 2}
IMAGES = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def model(depth=3, embed_dim=16, classes=10, seed=0):
    torch.manual_seed(seed)
    sizes = SIZES | {"depth": depth, "embed_dim": embed_dim}
    return create_model("vit", num_classes=classes, **sizes).eval()


def prepared(student, teacher=None, **settings):
    """A batch with the teacher's features; the student is ready to learn them."""
    facts, section = (
        get("objective", "bootstrapping").facts,
        choose("objective", "bootstrapping", **settings),
    )
    teacher = model(seed=1) if teacher is None else teacher
    facts["prepare"](section.config, student, False)
    with torch.no_grad():
        outputs = facts["teacher_outputs"](section.config, teacher, student, IMAGES[:1])(IMAGES)
    labels = torch.arange(6)
    return section, Batch(IMAGES, labels, torch.eye(10)[labels], outputs)


def test_the_loss_is_one_minus_the_cosine():
    student, teacher = model(), model(seed=1)
    section, batch = prepared(student, teacher)
    own, of_teacher = features(student, IMAGES), features(teacher, IMAGES)
    cosines = (own * of_teacher).sum(1) / own.norm(dim=1) / of_teacher.norm(dim=1)
    assert torch.allclose(section(student, batch).value, 1 - cosines.mean(), atol=1e-6)


def test_a_copy_of_the_teacher_has_no_loss_and_its_classes():
    student = model(seed=1)
    section, batch = prepared(student)
    loss = section(student, batch)
    assert loss.value.abs() < 1e-6
    hits = model(seed=1)(IMAGES).argmax(1) == batch.labels
    assert loss.metrics["accuracy"] == hits.float().mean()


def test_the_head_becomes_the_teachers():
    student, teacher = model(), model(seed=1)
    assert not torch.equal(student.head.weight, teacher.head.weight)
    prepared(student, teacher)
    assert torch.equal(student.head.weight, teacher.head.weight)


def test_frozen_blocks_norm_and_head_are_the_same_after_a_step():
    student = model()
    section, batch = prepared(student, frozen_blocks=1)
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    section(student, batch).value.backward()
    torch.optim.SGD([p for p in student.parameters() if p.requires_grad], lr=1.0).step()
    changed = {n for n, t in student.state_dict().items() if not torch.equal(t, before[n])}
    assert {name.split(".")[0] for name in changed} >= {"blocks", "patch_embed"}
    assert not [n for n in changed if n.startswith(("blocks.2.", "norm.", "head."))]


@pytest.mark.parametrize(
    ("student", "settings", "message"),
    [
        ({"embed_dim": 8}, {}, "width 16, and the student's 8"),
        ({"classes": 7}, {}, "choose the teacher's kind of head"),
        ({}, {"frozen_blocks": 3}, "frozen_blocks is 3, and the model has 3 blocks"),
    ],
)
def test_what_does_not_go_together_is_refused(student, settings, message):
    with pytest.raises(InvalidInput, match=message):
        prepared(model(**student), **settings)
