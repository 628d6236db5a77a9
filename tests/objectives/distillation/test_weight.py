"""Distillation block by block: its parts, its pairs, and what is refused before training."""

from dataclasses import replace

import pytest
import timm
import torch
from torch.nn import functional as F

from vitarium import create_model
from vitarium.core.config import InvalidConfig
from vitarium.core.errors import InvalidInput
from vitarium.core.registry import choose
from vitarium.data.batch import Batch
from vitarium.objectives.distillation._relations import (
    attention_relation,
    hidden_difference,
    hidden_relation,
)

SIZES = {"img_size": 16, "patch_size": 8, "embed_dim": 12, "depth": 4, "num_heads": 2}
SWIN = {
    "img_size": 32,
    "patch_size": 2,
    "window_size": 4,
    "embed_dim": 8,
    "depths": (2, 2),
    "num_heads": (2, 2),
    "num_classes": 5,
}


class Averaging(torch.nn.Module):
    def forward(self, tokens, **named):
        return tokens.mean(1, keepdim=True)


def vit(seed=0, num_classes=5, **changes):
    torch.manual_seed(seed)
    model = create_model("vit", num_classes=num_classes, **(SIZES | changes))
    for weight in model.parameters():
        weight.data += 0.05 * torch.randn_like(weight)
    return model.double().eval()


def swin(seed=0, **changes):
    torch.manual_seed(seed)
    return timm.create_model("swin_tiny_patch4_window7_224", **(SWIN | changes)).double().eval()


def batch(size=16):
    stream = torch.Generator().manual_seed(1)
    images = torch.randn(3, 3, size, size, generator=stream, dtype=torch.float64)
    labels = torch.arange(3)
    return Batch(images, labels, F.one_hot(labels, 5).double())


def told(chosen, teacher, student, given):
    facts = chosen.plugin.facts
    lesson = facts["teacher_outputs"](chosen.config, teacher, student, given.images[:1])
    with torch.no_grad():
        return replace(given, teacher_outputs=lesson(given.images))


def found(teacher, student, given=None, **settings):
    chosen = choose("objective", "weight_distillation", **settings)
    return chosen(student, told(chosen, teacher, student, given or batch()))


def inside(model, images):
    """Queries, keys, values of every block of timm's ViT, and its output, written out."""
    tokens = model.patch_embed(images)
    if model.cls_token is not None:
        tokens = torch.cat((model.cls_token.expand(len(images), -1, -1), tokens), dim=1)
    tokens, projected, outputs = tokens + model.pos_embed, [], []
    for block in model.blocks:
        projected.append(block.attn.qkv(block.norm1(tokens)))
        tokens = block(tokens)
        outputs.append(tokens)
    return projected, outputs


def mean(values):
    values = list(values)
    return sum(values) / len(values)


@pytest.mark.parametrize("tokens", ["all", "patches"])
@pytest.mark.parametrize("hidden", ["relation", "mse"])
def test_the_loss_is_the_weighted_sum_of_its_parts(tokens, hidden):
    teacher, student, given = vit(1), vit(2), batch()
    loss = found(
        teacher,
        student,
        alpha=0.25,
        temperature=2.0,
        relation_weight=0.5,
        hidden_weight=0.125,
        relation_heads=3,
        hidden=hidden,
        hidden_scale=7.0,
        tokens=tokens,
    )
    (own_qkv, own_hidden), (qkv, outputs) = (inside(m, given.images) for m in (student, teacher))
    start = 0 if tokens == "all" else 1
    cut = lambda one: one[:, start:]  # noqa: E731
    relation = mean(attention_relation(cut(own_qkv[i]), cut(qkv[i]), 3) for i in (1, 3))
    compare = hidden_difference if hidden == "mse" else lambda a, b: 7 * hidden_relation(a, b)
    difference = mean(compare(cut(own_hidden[i]), cut(outputs[i])) for i in (1, 3))
    own, theirs = student(given.images), teacher(given.images)
    prediction = -((theirs / 2).softmax(1) * (own / 2).log_softmax(1)).sum(1).mean()
    expected = 0.25 * F.cross_entropy(own, given.labels) + 0.75 * prediction
    expected = expected + 0.5 * relation + 0.125 * difference
    assert torch.allclose(loss.value, expected, rtol=1e-12)
    parts = {"prediction": prediction, "relation": relation, "hidden": difference}
    for name, part in parts.items():
        assert torch.allclose(loss.metrics[name], part, rtol=1e-12)
    assert loss.metrics.keys() == {"loss", "accuracy", *parts}


def test_a_copy_of_the_teacher_has_nothing_to_learn():
    teacher, student = vit(1), vit(1)
    loss = found(teacher, student)
    loss.value.backward()
    assert loss.metrics["hidden"] == 0
    assert max(weight.grad.abs().max() for weight in student.parameters()) < 1e-15


def test_a_student_that_follows_comes_near_its_teacher():
    teacher, student = vit(1), vit(2)
    chosen = choose("objective", "weight_distillation")
    given = told(chosen, teacher, student, batch())
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-2)
    first = chosen(student, given)
    for _ in range(20):
        optimizer.zero_grad()
        loss = chosen(student, given)
        loss.value.backward()
        optimizer.step()
    for part in ("prediction", "relation", "hidden"):
        assert loss.metrics[part] < first.metrics[part]


def test_by_default_labels_do_not_count():
    teacher, student, given = vit(1), vit(2), batch()
    other = replace(given, labels=given.labels + 1, targets=given.targets.roll(1, 1))
    assert torch.equal(found(teacher, student, given).value, found(teacher, student, other).value)


def test_a_part_without_weight_is_not_looked_at():
    loss = found(vit(1), vit(2), relation_weight=0, hidden_weight=0)
    assert loss.metrics.keys() == {"loss", "prediction", "accuracy"}
    loss = found(vit(1), vit(2), alpha=1, hidden_weight=0)
    assert loss.metrics.keys() == {"loss", "relation", "accuracy"}
    loss = found(vit(1, num_classes=7), vit(2), alpha=1, relation_weight=0)
    assert loss.metrics.keys() == {"loss", "hidden", "accuracy"}


def test_a_convolutional_teacher_tells_its_outputs():
    torch.manual_seed(0)
    teacher = timm.create_model("test_resnet", num_classes=5).double().eval()
    loss = found(teacher, vit(2), relation_weight=0, hidden_weight=0)
    assert loss.value.isfinite()
    with pytest.raises(InvalidInput, match="teacher cannot be compared block by block"):
        found(teacher, vit(2))


@pytest.mark.parametrize(
    ("teacher", "student", "settings"),
    [
        ({"embed_dim": 24}, {}, {"relation_heads": 3}),
        ({"depth": 6}, {}, {}),
        ({"depth": 2}, {"depth": 6}, {"layers": "all"}),
        ({"num_heads": 6}, {"num_heads": 3}, {"layers": [[0, 3], [3, 0]]}),
        ({"reg_tokens": 2}, {}, {"tokens": "patches"}),
        ({"class_token": False, "global_pool": "avg"}, {}, {"tokens": "patches"}),
    ],
)
def test_teachers_may_be_wider_deeper_and_with_other_tokens(teacher, student, settings):
    loss = found(vit(1, **teacher), vit(2, **student), **settings)
    loss.value.backward()
    assert loss.value.isfinite()


def test_a_multiplexed_student_learns_from_a_plain_teacher():
    torch.manual_seed(3)
    student = create_model("mini_deit", num_classes=5, **SIZES).double().eval()
    loss = found(vit(1), student, tokens="patches")
    loss.value.backward()
    for block in student.shared:
        assert block.attn.qkv.weight.grad.abs().max() > 0


def test_windows_are_compared_with_the_same_windows():
    teacher, given = swin(1, embed_dim=16), batch(32)
    loss = found(teacher, swin(2), given, layers="all", relation_heads=2)
    loss.value.backward()
    assert loss.value.isfinite()
    same = swin(1, embed_dim=16)
    found(teacher, same, given, layers="all").value.backward()
    assert max(weight.grad.abs().max() for weight in same.parameters()) < 1e-14


@pytest.mark.parametrize(
    ("teacher", "settings", "message"),
    [
        ({"reg_tokens": 2}, {}, r"5 tokens and 7 tokens.*tokens: patches"),
        ({"patch_size": 4}, {"tokens": "patches"}, "4 tokens and 16 tokens"),
        ({"patch_size": 4}, {"relation_weight": 0}, "5 tokens and 17 tokens"),
        ({"num_classes": 7}, {}, "for 7 classes and the student for 5 classes"),
        ({"embed_dim": 20}, {"relation_heads": 3}, "3 does not divide the teacher's width 20"),
        ({}, {"relation_heads": 5}, "5 does not divide the student's width 12"),
        ({"embed_dim": 24}, {"hidden": "mse"}, "12 and 24; use hidden: relation"),
        ({}, {"layers": [[1, 4]]}, "the teacher has no block 4: it has 4"),
        ({}, {"layers": [[4, 1]]}, "the student has no block 4: it has 4"),
    ],
)
def test_models_that_do_not_go_together_are_refused_before_training(teacher, settings, message):
    with pytest.raises(InvalidInput, match=message):
        found(vit(1, **teacher), vit(2), **settings)


def test_a_multiplexed_student_learns_from_a_teachers_windows():
    torch.manual_seed(3)
    sizes = {name: value for name, value in SWIN.items() if name != "num_classes"}
    student = create_model("mini_swin", num_classes=5, **sizes, share=2).double().eval()
    loss = found(swin(1, embed_dim=16), student, batch(32))
    loss.value.backward()
    for stage in student.layers:
        assert stage.shared[0].attn.qkv.weight.grad.abs().max() > 0
    with pytest.raises(InvalidInput, match=r"shifted by \(0, 0\) and \(2, 2\)"):
        found(swin(1), student, batch(32), layers=[[0, 1]])


def test_stages_of_other_windows_are_refused():
    with pytest.raises(
        InvalidInput, match="16 tokens in each of 16 windows and 16 tokens in each of 4"
    ):
        found(swin(1), swin(2), batch(32), layers=[[1, 3]])


def test_windows_that_stand_elsewhere_are_refused():
    with pytest.raises(InvalidInput, match=r"shifted by \(0, 0\) and \(2, 2\)"):
        found(swin(1), swin(2), batch(32), layers=[[0, 1]])
    assert found(swin(1), swin(2), batch(32), layers=[[0, 1]], relation_weight=0).value.isfinite()


def test_a_teacher_without_queries_keys_and_values_as_one_is_refused():
    teacher = vit(1)
    for block in teacher.blocks:
        block.attn = Averaging()
    with pytest.raises(InvalidInput, match=r"the teacher has no relations.*attn.qkv"):
        found(teacher, vit(2))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": []}, "no pair"),
        ({"layers": [[1, 2], [1, 3]]}, "block 1 of the student is paired twice"),
        ({"layers": [[-1, 2]]}, "layers"),
        ({"layers": "first"}, "layers"),
        ({"relation_heads": 0}, "relation_heads"),
        ({"hidden_weight": -1}, "hidden_weight"),
        ({"tokens": "class"}, "tokens"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(InvalidConfig, match=message):
        choose("objective", "weight_distillation", **settings)
