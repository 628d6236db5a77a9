"""G2SD against its reference's counts and against formulas of its parts."""

import shutil
from dataclasses import replace

import pytest
import torch
from torch import nn

from vitarium import Blueprint, Zoo, create_model, plan
from vitarium.architectures.patch_tokens import fix_positions
from vitarium.core.config import InvalidConfig
from vitarium.core.devices import meta_device
from vitarium.core.errors import InvalidInput
from vitarium.core.registry import choose, section
from vitarium.data.batch import Batch
from vitarium.engine.check import ModelCheck
from vitarium.engine.events import Ended
from vitarium.engine.shipping import pack
from vitarium.engine.worker import Job, run_job
from vitarium.objectives.companions import TeacherWithCompanions
from vitarium.objectives.distillation.g2sd import STATES
from vitarium.training import TrainOptions
from vitarium.training.teacher import Teacher

SIZES = {"img_size": 8, "patch_size": 2, "in_chans": 1, "num_heads": 2}
SETTINGS = {"name": "g2sd", "mask_ratio": 0.5, "decoder_dim": 8, "decoder_depth": 1,
            "decoder_heads": 2, "teacher_dim": 16, "teacher_block": 1}  # fmt: skip
TEACHER = {"name": "mae", "decoder_dim": 16, "decoder_depth": 2, "decoder_heads": 4}


def headless(**sizes):
    model = create_model("vit", num_classes=2, **sizes)
    choose("head", "none")(model, 2)
    return model


def counted(*modules):
    return sum(p.numel() for module in modules for p in module.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("student", "width", "heads", "published", "encoder", "predictor"),
    [(384, 256, 8, 26_326_272, 21_590_016, 394_240), (192, 128, 4, 7_471_360, 5_486_592, 328_704)],
)
def test_it_has_as_many_parameters_as_the_authors_count(
    student, width, heads, published, encoder, predictor
):
    g2sd = section("objective", {"name": "g2sd", "decoder_dim": width, "decoder_heads": heads})
    with meta_device():
        model = headless(embed_dim=student, depth=12, num_heads=6)
        g2sd.facts["prepare"](g2sd.config, model, True)
        companions = g2sd.facts["companions"](g2sd.config, model, 2)
    assert counted(model) == encoder
    assert counted(companions.decoder.map) == predictor
    # theirs have parts that no gradient reaches: a head of pixels with a norm before it, and a
    # predictor of encoder features
    head, norm = width * 768 + 768, 2 * width
    features = student * 768 + 768 + 768 * 768 + 768
    assert counted(model, companions) == published - head - norm - features


@pytest.fixture
def pair():
    """The objective, a student with its companions, a teacher, and a batch with masks."""
    torch.manual_seed(0)
    g2sd, mae = section("objective", SETTINGS), section("objective", TEACHER)
    student, model = (
        headless(embed_dim=8, depth=1, **SIZES),
        headless(embed_dim=12, depth=2, **SIZES),
    )
    fix_positions(student)
    teacher = TeacherWithCompanions(model, mae.facts["companions"](mae.config, model, 2)).eval()
    generator = torch.Generator().manual_seed(1)
    images, labels = torch.randn(3, 1, 8, 8, generator=generator), torch.tensor([0, 1, 0])
    masks = g2sd.facts["masks"](g2sd.config, student)
    drawn = torch.rand(3, masks.numbers, dtype=torch.float64, generator=generator)
    batch = Batch(images, labels, torch.eye(2)[labels], masks=masks.masks(drawn))
    return g2sd, student, g2sd.facts["companions"](g2sd.config, student, 2), teacher, batch


def taught(g2sd, student, teacher, batch):
    outputs_of = g2sd.facts["teacher_outputs"](g2sd.config, teacher, student, batch.images[:1])
    with torch.no_grad():
        return replace(batch, teacher_outputs=outputs_of(batch.images, batch.masks))


def test_the_teacher_sees_the_same_patches_and_states_are_those_after_its_block(pair):
    g2sd, student, _, teacher, batch = pair
    tokens, restored = [], []
    encoder, decoder = teacher.model, teacher.companions.decoder
    encoder.blocks[0].register_forward_pre_hook(lambda m, inputs: tokens.append(inputs[0]))
    decoder.blocks[0].register_forward_pre_hook(lambda m, inputs: restored.append(inputs[0]))
    after = []
    decoder.blocks[0].register_forward_hook(lambda m, inputs, output: after.append(output))
    states = taught(g2sd, student, teacher, batch).teacher_outputs[STATES]
    assert tokens[0].shape == (3, 1 + 8, 12)
    patches = encoder.patch_embed(batch.images) + encoder.pos_embed[:, 1:]
    for image in range(3):
        assert torch.allclose(tokens[0][image, 1:], patches[image][~batch.masks[image]])
    hidden = restored[0][:, 1:] - decoder.positions
    assert torch.equal(
        (hidden - decoder.mask_token).abs().amax(-1) < 1e-6, batch.masks
    )  # each at its own place
    assert states.shape == (3, 17, 16)
    assert torch.equal(states, after[0])
    assert len(restored) == 1


def test_the_loss_is_smooth_l1_of_normalized_states_in_float64(pair):
    g2sd, student, companions, teacher, batch = pair
    batch = taught(g2sd, student, teacher, batch)
    loss = g2sd(student, batch, companions)
    predicted = []
    companions.decoder.map.register_forward_hook(lambda m, i, output: predicted.append(output))
    g2sd(student, batch, companions)
    states = batch.teacher_outputs[STATES].double()
    targets = (states - states.mean(-1, keepdim=True)) / (
        states.var(-1, correction=0, keepdim=True) + 1e-6
    ).sqrt()
    distance = (predicted[0].double() - targets).abs()
    values = torch.where(distance < 2, distance**2 / 4, distance - 1)
    assert loss.value.item() == pytest.approx(values.mean().item(), rel=1e-5)


def test_targets_do_not_change_by_scale_and_shift_and_can_be_met(pair):
    g2sd, student, companions, teacher, batch = pair
    batch = taught(g2sd, student, teacher, batch)
    states = batch.teacher_outputs[STATES]
    other = replace(batch, teacher_outputs={STATES: 3 * states + 5})
    first, second = (g2sd(student, each, companions).value.item() for each in (batch, other))
    assert first == pytest.approx(second, rel=1e-4)
    companions.decoder.map = nn.Identity()
    companions.decoder.states = lambda encoded, masks: nn.functional.layer_norm(
        states, (16,), eps=1e-6
    )
    assert g2sd(student, batch, companions).value.item() < 1e-12


def test_the_student_learns_and_the_teacher_does_not(pair):
    g2sd, student, companions, teacher, batch = pair
    g2sd(student, taught(g2sd, student, teacher, batch), companions).value.backward()
    assert companions.decoder.mask_token.grad.abs().sum() > 0
    assert student.blocks[0].attn.qkv.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in teacher.parameters())


@pytest.mark.parametrize(
    ("settings", "sizes", "message"),
    [
        ({"teacher_dim": 32}, {}, "set teacher_dim to 16"),
        ({"teacher_block": 3}, {}, "set teacher_block to at most 2"),
        ({}, {"patch_size": 4}, "4 x 4 patches and 1 others, and the student's 2 x 2"),
        ({}, {"class_token": False, "global_pool": "avg"}, "16 patches|4 x 4 patches and 0 others"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(pair, settings, sizes, message):
    _, _, _, teacher, batch = pair
    g2sd = section("objective", SETTINGS | settings)
    student = headless(embed_dim=8, depth=1, **(SIZES | sizes))
    with pytest.raises(InvalidInput, match=message):
        g2sd.facts["teacher_outputs"](g2sd.config, teacher, student, batch.images[:1])


def planned(keeps=True, **objective):
    stage = {
        "architecture": {"name": "vit", "embed_dim": 12, "depth": 2, **SIZES},
        "data": {"name": "digits", "train_limit": 32},
        "objective": TEACHER,
        "keep_companions": keeps,
        "epochs": 1,
        "batch_size": 16,
    }
    stages = {"teachers": stage}
    if objective:
        student = {"architecture": {"name": "vit", "embed_dim": 8, "depth": 1, **SIZES}}
        own = stage | student | {"objective": SETTINGS | objective, "keep_companions": False}
        stages = {"students": own}
    return plan(Blueprint.read({"name": "g2sd", "stages": stages}))


def grow(zoo, spec):
    ended = []
    emit = lambda event: ended.append(event) if isinstance(event, Ended) else None  # noqa: E731
    run_job(Job(str(zoo.path), (spec.factors(),), TrainOptions()), emit)
    return ended[0]


def test_a_student_is_taught_by_a_model_of_the_zoo(tmp_path):
    zoo = Zoo.create(tmp_path / "zoo")
    (teacher,) = planned().models
    assert grow(zoo, teacher).status == "finished"
    students = planned(teacher=teacher.id)
    ModelCheck(zoo).check_plan(students)
    assert grow(zoo, students.models[0]).status == "finished"
    assert any("companions" in path for path in pack(zoo, students.models))
    with pytest.raises(InvalidConfig, match="set teacher_block to at most 2"):
        ModelCheck(zoo).check_plan(planned(teacher=teacher.id, teacher_block=3))
    with pytest.raises(InvalidConfig, match="name that one"):
        ModelCheck(zoo).check_plan(planned(teacher=f"{teacher.id}@0"))
    shutil.rmtree(zoo.folder(students.models[0].id).path)
    (file,) = zoo.folder(teacher.id).path.glob("companions-*")
    file.write_bytes(file.read_bytes()[:-9])
    assert file.name in grow(zoo, students.models[0]).message


def test_a_teacher_without_companions_is_refused_before_training(tmp_path):
    with pytest.raises(InvalidConfig, match="has no decoder; name a model of the zoo"):
        planned(teacher="./teacher")
    zoo = Zoo.create(tmp_path / "zoo")
    (spec,) = planned(keeps=False).models
    assert grow(zoo, spec).status == "finished"
    with pytest.raises(InvalidConfig, match="keep_companions: true"):
        ModelCheck(zoo).check_plan(planned(teacher=spec.id))


def test_a_plain_module_is_no_teacher(pair):
    _, student, _, teacher, batch = pair
    recipe = planned(teacher="0" * 12).models[0].recipe
    with pytest.raises(InvalidInput, match="needs a teacher with its companions"):
        Teacher(recipe, teacher.model, student, batch.images[:1])
