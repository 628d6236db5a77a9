"""Teachers that are models of another stage: `teacher: {stage: NAME}`."""

from copy import deepcopy

import pytest

from vitarium import Blueprint, grow, plan
from vitarium.core.config import InvalidConfig
from vitarium.engine.check import ModelCheck
from vitarium.engine.part import part_of
from vitarium.engine.scheduler import Queue

SIZES = {"name": "vit", "img_size": 8, "patch_size": 4, "in_chans": 1, "num_heads": 2}
DECODER = {"decoder_dim": 8, "decoder_depth": 2, "decoder_heads": 2, "mask_ratio": 0.5}


@pytest.fixture
def taught(tiny):
    """Students before their teachers in the file: one of each of two pretrained models."""
    pretrain = tiny["stages"]["pretrain"]
    student = deepcopy(pretrain) | {"grid": {"seed": [7]}}
    student["objective"] = {"name": "hard_distillation", "teacher": {"stage": "pretrain"}}
    return {"name": "taught", "stages": {"student": student, "pretrain": pretrain}}


@pytest.fixture
def two_stages(tiny):
    """G2SD: a decoder teaches, then a classifier."""
    base = {k: v for k, v in tiny["stages"]["pretrain"].items() if k != "grid"} | {"epochs": 1}
    teacher = {"architecture": {**SIZES, "embed_dim": 12, "depth": 2}, "keep_companions": True}
    of_decoder = {"name": "g2sd", "teacher": {"stage": "teacher"}, "teacher_dim": 8}
    of_classes = {"name": "hard_distillation", "teacher": {"stage": "tuned"}}
    later = {k: v for k, v in base.items() if k != "architecture"}
    stages = {
        "teacher": base | teacher | {"objective": {"name": "mae", **DECODER}},
        "tuned": later | {"start": "teacher"},
        "generic": base | {"objective": {**DECODER, **of_decoder, "teacher_block": 2}},
        "specific": later | {"start": "generic", "objective": of_classes},
    }
    return {"name": "g2sd", "stages": stages}


def refused(blueprint, **teacher):
    blueprint["stages"]["student"]["objective"]["teacher"] = teacher
    with pytest.raises(InvalidConfig) as error:
        plan(Blueprint.read(blueprint))
    return str(error.value)


def test_each_model_of_the_stage_teaches_a_student_that_names_it(taught):
    planned = plan(Blueprint.read(taught))
    teachers, students = planned.of_stage("pretrain"), planned.of_stage("student")
    named = [student.recipe.objective.config.teacher for student in students]
    assert named == [f"{teacher.id}@2" for teacher in teachers]
    assert [model.stage for model in planned.models] == ["pretrain"] * 2 + ["student"] * 2
    taught["stages"]["student"]["objective"]["teacher"] = named[0]
    assert plan(Blueprint.read(taught)).of_stage("student") == students[:1]


def test_an_earlier_epoch_may_teach(taught):
    taught["stages"]["student"]["objective"]["teacher"]["epoch"] = 1
    students = plan(Blueprint.read(taught)).of_stage("student")
    assert all(each.recipe.objective.config.teacher.endswith("@1") for each in students)
    assert "does not keep epoch 3; it keeps [0, 1, 2]" in refused(taught, stage="pretrain", epoch=3)


def test_what_is_no_stage_of_teachers_is_refused(taught):
    where = "stages.student.objective.teacher: "
    assert f"{where}unknown stage 'pretrian'; did you mean" in refused(taught, stage="pretrian")
    assert f"{where}'scratch' is no stage" in refused(taught, stage="scratch")
    assert "is no model, no file, and no stage" in refused(taught, model="3f2a")
    assert "circle: student -> student" in refused(taught, stage="student")


def test_students_wait_for_their_teacher_and_bring_it(taught):
    planned = plan(Blueprint.read(taught))
    teachers, students = planned.of_stage("pretrain"), planned.of_stage("student")
    queue = Queue(planned, done=[teachers[1].id], without_checkpoint=[teachers[0].id])
    assert queue.next() == students[1]
    assert queue.next() is None
    assert queue.missing(students[0]) == {"teacher": teachers[0].id}
    only = part_of(planned, only=f"id = '{students[0].id}'")
    assert only.models == (teachers[0], students[0])


def test_both_stages_of_g2sd_are_one_blueprint(two_stages, tmp_path):
    growth = grow(two_stages, tmp_path / "zoo", workers=0, progress=False, stacked=1)
    assert growth.complete
    assert len(growth.grown) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher_dim": 16}, "the teacher's decoder is 8 wide: set teacher_dim to 8"),
        ({"teacher": {"stage": "teacher", "epoch": 0}}, "companions are those after epoch 1"),
        ({"teacher": {"stage": "tuned"}}, "that was trained with `keep_companions: true`"),
    ],
)
def test_a_planned_teacher_that_does_not_fit_is_refused(two_stages, changes, message):
    two_stages["stages"]["generic"]["objective"] |= changes
    with pytest.raises(InvalidConfig) as error:
        plan(Blueprint.read(two_stages), check=ModelCheck())
    assert "stages.generic.objective.teacher: " in str(error.value)
    assert message in str(error.value)
