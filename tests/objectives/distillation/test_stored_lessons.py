"""Stored lessons: they teach what the teacher would, prove that they are whole, and fit or refuse."""

import json
import shutil
import struct
from copy import deepcopy

import numpy as np
import pytest
import torch

from vitarium import Blueprint, Zoo, check_lessons, grow, plan, write_lessons
from vitarium.core.config import InvalidConfig
from vitarium.core.errors import CorruptFile, InvalidInput
from vitarium.engine.check import ModelCheck
from vitarium.objectives.distillation import _lesson_files as lesson_files
from vitarium.training import Stepped, Task, TrainOptions, stack_key, train, train_together
from vitarium.training.train_state import TrainState
from vitarium.zoo import ModelFolder

PLAIN = {"workers": 0, "precision": "fp32", "compiled": False, "stacked": 1, "progress": False}
MIXED = {"name": "standard", "crop": "random", "padding": 1, "mixup": 0.8, "cutmix": 1.0}


def probabilities(records=40, classes=7, seed=0):
    stream = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(records, classes, generator=stream)).softmax(1)


# What is on disk


@pytest.mark.parametrize(
    ("classes", "dtype", "width"), [(7, "int16", 4), (32_767, "int16", 4), (32_768, "int32", 6)]
)
def test_a_record_takes_4_bytes_for_each_class_or_6_of_many_classes(
    tmp_path, classes, dtype, width
):
    lessons = lesson_files.largest(probabilities(4, classes), 5)
    path = lesson_files.write_epoch(tmp_path, 1, lessons, "store")
    content = path.read_bytes()
    (length,) = struct.unpack("<I", content[8:12])
    header = json.loads(content[12 : 12 + length])
    assert lessons.indices.dtype.name == dtype == header["parts"][0]["dtype"]
    assert lessons.indices.nbytes + lessons.probabilities.nbytes == 4 * 5 * width
    plain = [about for about in header["parts"] if not about["zstd"]]
    assert all(about["bytes"] <= 4 * 5 * 4 for about in header["parts"])
    assert len(content) == 12 + length + sum(a["bytes"] for a in header["parts"]) + 8
    assert plain or all(about["zstd"] for about in header["parts"])


@pytest.mark.parametrize("top_k", [1, 3, 7])
def test_what_is_read_is_what_was_written_bit_for_bit(tmp_path, top_k):
    lessons = lesson_files.largest(probabilities(), top_k)
    lesson_files.write_epoch(tmp_path, 3, lessons, "store")
    again = lesson_files.read_epoch(tmp_path, 3, "store", 7)
    assert np.array_equal(again.indices, lessons.indices)
    assert np.array_equal(again.probabilities.view("u2"), lessons.probabilities.view("u2"))


@pytest.mark.parametrize("top_k", [1, 4, 6, 7])
def test_dense_probabilities_are_the_stored_ones_and_the_rest_spread_evenly(top_k):
    exact = probabilities()
    lessons = lesson_files.largest(exact, top_k)
    dense = lesson_files.dense(lessons, 7)
    assert torch.allclose(dense.sum(1), torch.ones(40), atol=1e-3)
    order = exact.argsort(1, descending=True)
    for row in range(40):
        stored, rest = order[row, :top_k], order[row, top_k:]
        assert lessons.indices[row].tolist() == stored.tolist()
        assert torch.equal(dense[row, stored], exact[row, stored].half().float())
        if len(rest):
            expected = max(0.0, 1 - dense[row, stored].double().sum().item()) / len(rest)
            assert torch.allclose(dense[row, rest], torch.tensor(expected).float(), atol=1e-7)
    entropy = -torch.xlogy(dense, dense).sum(1)
    cross_entropy = -(dense * probabilities(seed=1).log()).sum(1)
    assert (cross_entropy >= entropy - 1e-3).all()


def test_rounding_leaves_no_negative_rest():
    above_1 = np.array([[0.50048828125, 0.5]], np.float16)
    lessons = lesson_files.Lessons(np.array([[3, 1]], np.int16), above_1)
    assert float(lessons.probabilities.astype(np.float64).sum()) > 1
    assert (lesson_files.dense(lessons, 5) >= 0).all()


def test_every_flipped_byte_and_every_lost_end_is_noticed_and_named(tmp_path):
    path = lesson_files.write_epoch(tmp_path, 1, lesson_files.largest(probabilities(), 3), "store")
    content = path.read_bytes()
    for at in range(0, len(content), 7):
        damaged = bytearray(content)
        damaged[at] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(CorruptFile, match=path.name):
            lesson_files.read_epoch(tmp_path, 1, "store", 7)
    for length in (0, 5, 12, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(CorruptFile, match=path.name):
            lesson_files.read_epoch(tmp_path, 1, "store", 7)


def test_files_of_other_lessons_epochs_and_classes_are_refused(tmp_path):
    path = lesson_files.write_epoch(tmp_path, 1, lesson_files.largest(probabilities(), 3), "store")
    with pytest.raises(CorruptFile, match="other lessons"):
        lesson_files.read_epoch(tmp_path, 1, "another", 7)
    with pytest.raises(CorruptFile, match="classes beyond the 2"):
        lesson_files.read_epoch(tmp_path, 1, "store", 2)
    shutil.copy(path, lesson_files.epoch_file(tmp_path, 2))
    with pytest.raises(CorruptFile, match="another epoch"):
        lesson_files.read_epoch(tmp_path, 2, "store", 7)
    with pytest.raises(InvalidInput, match="no lessons of epoch 3"):
        lesson_files.read_epoch(tmp_path, 3, "store", 7)


# What students learn of them


def students(tiny, lessons, teacher, seeds=(1, 2), objective=None, **changes):
    taught = {"name": "stored_lessons", "lessons": str(lessons), "teacher": teacher}
    stage = tiny["stages"]["pretrain"] | {"augmentation": MIXED}
    stage |= {"objective": taught | (objective or {}), "grid": {"seed": list(seeds)}}
    return Blueprint.read({"name": "taught", "stages": {"student": stage | changes}})


@pytest.fixture(scope="module")
def material(_grown, tmp_path_factory):
    """A zoo with a teacher, and lessons with all classes and with three of them."""
    folder = tmp_path_factory.mktemp("lessons")
    zoo = Zoo.open(_grown)
    teacher = next(id for id in zoo.ids() if zoo.spec(id).parent is None)
    recipe = zoo.spec(teacher).recipe.factors(defaults=False)
    base = {"stages": {"pretrain": {k: value for k, value in recipe.items() if k != "seed"}}}
    for name, settings in (("all", {}), ("three", {"top_k": 3})):
        blueprint = students(base, folder / name, teacher, objective=settings)
        (written,) = write_lessons(blueprint, zoo)
        assert (written.epochs, written.new_epochs) == (2, 2)
    return {"zoo": zoo, "teacher": teacher, "all": folder / "all", "three": folder / "three"}


@pytest.fixture
def lessons(material, tmp_path):
    """A copy that can be changed."""
    return shutil.copytree(material["all"], tmp_path / "copy")


def losses(folder):
    return [epoch.metrics["train_loss"] for epoch in folder.epochs()[1:]]


def online(tiny, material, seed):
    """The same objective, with a teacher that is asked."""
    settings = {"relation_weight": 0, "hidden_weight": 0, "teacher": material["teacher"]}
    stage = tiny["stages"]["pretrain"] | {"augmentation": MIXED, "grid": {"seed": [seed]}}
    stage |= {"objective": {"name": "weight_distillation", **settings}}
    (spec,) = plan(Blueprint.read({"name": "x", "stages": {"pretrain": stage}})).models
    return spec


def test_they_teach_what_the_teacher_would(tiny, material, tmp_path):
    for which, settings, close in (("all", {}, 2e-4), ("three", {"top_k": 3}, 0.2)):
        (spec,) = plan(students(tiny, material[which], material["teacher"], [0], settings)).models
        stored = ModelFolder(tmp_path / which / "m" / spec.id)
        train(spec, stored)
        taught = online(tiny, material, 0)
        online_folder = ModelFolder(tmp_path / which / "m" / taught.id)
        train(taught, online_folder, teacher=material["zoo"].load(material["teacher"]))
        assert losses(stored) == pytest.approx(losses(online_folder), rel=close)
        if which == "three":
            assert losses(stored) != pytest.approx(losses(online_folder), rel=1e-6)
            continue
        online_weights = online_folder.weights()
        for name, weight in stored.weights().items():
            assert torch.allclose(weight, online_weights[name], atol=3e-3), name


def test_students_share_images_and_differ_in_their_weights(tiny, material, tmp_path):
    seen = []
    first, second = plan(students(tiny, material["all"], material["teacher"])).models

    for spec in (first, second):
        folder = ModelFolder(tmp_path / "m" / spec.id)
        state = TrainState(spec, folder, None, TrainOptions())
        seen.append((next(state.batches.train(1)).images, state.model.state_dict()))
    assert torch.equal(seen[0][0], seen[1][0])
    assert not torch.equal(seen[0][1]["head.weight"], seen[1][1]["head.weight"])


def test_epochs_have_augmentations_and_lessons_of_their_own(material):
    first, second = (
        lesson_files.read_epoch(
            material["all"],
            epoch,
            lesson_files.store_checksum(lesson_files.read_description(material["all"])),
            10,
        )
        for epoch in (1, 2)
    )
    assert not np.array_equal(first.probabilities, second.probabilities)


def test_a_killed_run_a_stack_and_a_batch_in_parts_learn_the_same(tiny, material, tmp_path):
    sgd = {"name": "sgd", "lr": 0.02, "momentum": 0.9}
    specs = plan(students(tiny, material["all"], material["teacher"], optimizer=sgd)).models
    spec = specs[0]

    class Killed(Exception):
        pass

    def kill(event):
        if isinstance(event, Stepped) and (event.epoch, event.step) == (2, 1):
            raise Killed

    whole, killed = (ModelFolder(tmp_path / name / "m" / spec.id) for name in ("whole", "killed"))
    train(spec, whole)
    with pytest.raises(Killed):
        train(spec, killed, report=kill)
    train(spec, killed)
    assert whole.checkpoint() == killed.checkpoint()
    assert len({stack_key(each) for each in specs} - {None}) == 1
    tasks = [Task(each, ModelFolder(tmp_path / "stack" / "m" / each.id)) for each in specs]
    train_together(tasks)
    assert losses(tasks[0].folder) == pytest.approx(losses(whole), rel=1e-4)
    (parts,) = plan(
        students(tiny, material["all"], material["teacher"], [1], optimizer=sgd, accumulation=2)
    ).models
    in_parts = ModelFolder(tmp_path / "parts" / "m" / parts.id)
    train(parts, in_parts)
    assert losses(in_parts) == pytest.approx(losses(whole), rel=1e-4)


# What does not fit


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"name": "digits", "train_limit": 95}}, "their data is .*96"),
        ({"augmentation": "standard"}, "their augmentation is"),
        ({"batch_size": 16}, "their batch_size is 32, and the student's 16"),
        ({"epochs": 3}, "no lessons of epoch 3 .1 of 3 epochs are missing"),
        ({"sampling": "balanced"}, "their sampling is not set"),
        ({"objective": {"lessons_seed": 5}}, "their lessons_seed is 0, and the student's 5"),
        ({"objective": {"top_k": 3}}, "their top_k is 10, and the student's 3"),
        ({"objective": {"teacher": "./another"}}, "their teacher is"),
        ({"objective": {"lessons": "nowhere"}}, "there are no lessons at .*nowhere"),
        ({"data": {"name": "mnist5k"}}, "their data is"),
    ],
)
def test_students_of_other_images_or_teachers_are_refused_before_training(
    tiny, material, changes, message
):
    blueprint = students(tiny, material["all"], material["teacher"], **deepcopy(changes))
    planned = plan(blueprint)
    with pytest.raises(InvalidConfig, match=rf"stages.student.objective: .*{message}"):
        ModelCheck(material["zoo"]).check_plan(planned)


def test_other_training_images_and_class_counts_are_refused(tiny, lessons, material, tmp_path):
    description = lesson_files.read_description(lessons)
    (spec,) = plan(students(tiny, lessons, material["teacher"], [1])).models
    for change, message in (
        ({"labels": "0" * 16}, "other training images"),
        ({"num_classes": 9}, "number of classes is 9, and the student's 10"),
    ):
        lesson_files.write_description(lessons, description | change)
        with pytest.raises(InvalidInput, match=message):
            train(spec, ModelFolder(tmp_path / "m" / spec.id))


def test_a_damaged_file_of_a_later_epoch_is_named_before_training(
    tiny, lessons, material, tmp_path
):
    planned = plan(students(tiny, lessons, material["teacher"], [1]))
    ModelCheck(material["zoo"]).check_plan(planned)
    file = lesson_files.epoch_file(lessons, 2)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(InvalidConfig, match=r"stages.student.objective: .*epoch-00002"):
        ModelCheck(material["zoo"]).check_plan(planned)
    folder = ModelFolder(tmp_path / "m" / planned.models[0].id)
    with pytest.raises(CorruptFile, match="epoch-00002"):
        train(planned.models[0], folder)
    assert not folder.exists


def test_writing_resumes_extends_and_repairs(tiny, lessons, material):
    blueprint = students(tiny, lessons, material["teacher"])
    files = [lesson_files.epoch_file(lessons, epoch) for epoch in (1, 2)]
    before = [file.read_bytes() for file in files]
    files[0].unlink()
    files[1].write_bytes(before[1][:-1])
    (written,) = write_lessons(blueprint, material["zoo"])
    assert written.new_epochs == 2
    assert [file.read_bytes() for file in files] == before
    (longer,) = write_lessons(
        students(tiny, lessons, material["teacher"], epochs=3), material["zoo"]
    )
    assert (longer.epochs, longer.new_epochs) == (3, 1)
    with pytest.raises(InvalidInput, match="has lessons already, and their images is"):
        write_lessons(students(tiny, lessons, material["teacher"], batch_size=16), material["zoo"])


def test_what_cannot_be_written_is_refused(tiny, material, tmp_path):
    zoo, teacher = material["zoo"], material["teacher"]
    with pytest.raises(InvalidInput, match="no model of the blueprint has `objective: stored"):
        write_lessons(Blueprint.read(tiny), zoo)
    grid = {"seed": [1], "batch_size": [16, 32]}
    with pytest.raises(InvalidInput, match=r"their batch_size is .*: give them a folder each"):
        write_lessons(students(tiny, tmp_path, teacher, grid=grid), zoo)
    with pytest.raises(InvalidInput, match="there is no parent to learn from"):
        write_lessons(students(tiny, tmp_path, "parent"), zoo)
    larger = {**tiny["stages"]["pretrain"]["architecture"], "img_size": 16}
    with pytest.raises(InvalidInput, match=r"cannot take the students' images .1x16x16"):
        write_lessons(students(tiny, tmp_path / "x", teacher, architecture=larger), zoo)


def test_a_drift_from_the_teacher_is_noticed(lessons, material):
    for drift in check_lessons(lessons, material["zoo"]):
        assert drift.records == 64
        assert drift.largest < 5e-4
        assert drift.other_classes == 0
        assert not drift.has_drifted
    store = lesson_files.store_checksum(lesson_files.read_description(lessons))
    stored = lesson_files.read_epoch(lessons, 2, store, 10)
    changed = stored._replace(probabilities=stored.probabilities * np.float16(0.9))
    lesson_files.write_epoch(lessons, 2, changed, store)
    assert [drift.has_drifted for drift in check_lessons(lessons, material["zoo"])] == [False, True]
    file = lesson_files.epoch_file(lessons, 1)
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(CorruptFile, match=file.name):
        check_lessons(lessons, material["zoo"])


def test_grow_trains_students_of_the_lessons(tiny, material, tmp_path):
    zoo = Zoo.open(shutil.copytree(material["zoo"].path, tmp_path / "zoo"))
    blueprint = students(tiny, material["three"], material["teacher"], objective={"top_k": 3})
    growth = grow(blueprint, zoo.path, **PLAIN)
    assert len(growth.grown) == 2
