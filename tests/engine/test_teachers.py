"""Teachers as recipes name them: found where they lie, and refused with what to change."""

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from vitarium import Blueprint, Zoo, create_model, export, grow, plan
from vitarium.core.config import InvalidConfig
from vitarium.core.errors import (
    CorruptFile,
    IncompatibleWeights,
    InvalidInput,
    UntrustedFile,
    VitariumError,
)
from vitarium.engine.events import Ended
from vitarium.engine.shipping import pack, run_shipped
from vitarium.engine.teachers import load_teacher
from vitarium.engine.tuning.auto_tuner import AutoTuner, TrainRequest
from vitarium.engine.tuning.calibration import Calibration
from vitarium.engine.tuning.estimate import estimate
from vitarium.engine.tuning.machine import Machine
from vitarium.engine.worker import Job, run_job
from vitarium.training import TrainOptions
from vitarium.training.teacher import Teacher

SIZES = {"img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 16, "depth": 1, "num_heads": 2}
VIT = {"name": "vit", **SIZES}


def student(tiny, stage="finetune", **objective):
    """A spec that learns from a teacher; its parent is the first model of the tiny zoo."""
    tiny["stages"][stage]["objective"] = {"name": "soft_distillation", **objective}
    return plan(Blueprint.read(tiny)).of_stage(stage)[0]


def trained(zoo, *some):
    told = []
    factors = tuple(spec.factors() for spec in some)
    run_job(Job(str(zoo.path), factors, TrainOptions()), told.append)
    return {event.model: event for event in told if isinstance(event, Ended)}


def written(folder: Path, model=None, name="teacher.safetensors") -> Path:
    torch.manual_seed(5)
    model = model or create_model("vit", num_classes=10, **SIZES)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), folder / name)
    return folder / name


def logits(model, images):
    with torch.no_grad():
        return model(images)


@pytest.fixture
def images():
    return torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def test_the_parent_teaches_as_it_was_when_training_started(tiny, grown_zoo, images):
    tiny["stages"]["finetune"]["start"] = {"stage": "pretrain", "epoch": 1}
    own = student(tiny)
    found = load_teacher(own, grown_zoo)
    assert own.parent_epoch == 1
    assert torch.equal(logits(found, images), logits(grown_zoo.load(own.parent, 1), images))
    assert not torch.equal(logits(found, images), logits(grown_zoo.load(own.parent, 2), images))
    assert not found.training


@pytest.mark.parametrize("epoch", ["", "@1"])
def test_any_model_of_the_zoo_can_teach(tiny, grown_zoo, images, epoch):
    other = plan(Blueprint.read(tiny)).of_stage("pretrain")[1].id
    found = load_teacher(student(tiny, teacher=other + epoch), grown_zoo)
    expected = grown_zoo.load(other, 1 if epoch else -1)
    assert torch.equal(logits(found, images), logits(expected, images))


@pytest.mark.parametrize("head", [None, {"name": "mlp", "hidden_dim": 6}])
def test_a_file_teaches_with_the_architecture_that_the_recipe_says(
    tiny, tmp_path, grown_zoo, images, head
):
    from vitarium.core.registry import section

    model = create_model("vit", num_classes=10, **SIZES)
    if head:
        section("head", head)(model, 10)
    file = written(tmp_path, model)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    own = student(
        tiny,
        teacher=str(file),
        teacher_architecture=VIT,
        teacher_sha256=digest,
        **({"teacher_head": head} if head else {}),
    )
    assert torch.equal(logits(load_teacher(own, grown_zoo), images), logits(model.eval(), images))


def test_a_folder_that_timm_loads_teaches(tiny, tmp_path, grown_zoo, images):
    id = plan(Blueprint.read(tiny)).of_stage("pretrain")[0].id
    (folder,) = export(grown_zoo, "timm", out=tmp_path / "timm", models=[id])
    found = load_teacher(student(tiny, teacher=str(folder)), grown_zoo)
    assert torch.equal(logits(found, images), logits(grown_zoo.load(id), images))


def test_a_file_is_looked_for_from_here_and_in_the_zoo(tiny, tmp_path, grown_zoo, monkeypatch):
    own = student(tiny, teacher="kept/teacher.safetensors", teacher_architecture=VIT)
    monkeypatch.chdir(tmp_path)
    folders = [tmp_path / "kept", grown_zoo.path / "kept"]
    with pytest.raises(InvalidInput) as error:
        load_teacher(own, grown_zoo)
    assert all(str(place / "teacher.safetensors") in str(error.value) for place in folders)
    for place in folders:
        file = written(place)
        assert load_teacher(own, grown_zoo) is not None
        file.unlink()


@pytest.mark.parametrize("name", ["soft_distillation", "weight_distillation"])
def test_a_student_learns_from_its_parent_in_a_blueprint(tiny, tmp_path, name):
    tiny["stages"]["finetune"]["objective"] = name
    tiny["stages"]["finetune"]["data"] = tiny["stages"]["pretrain"]["data"]
    grow(Blueprint.read(tiny), tmp_path / "zoo", workers=0, progress=False)
    zoo = Zoo.open(tmp_path / "zoo")
    assert set(zoo.models()["status"]) == {"finished"}
    own = plan(Blueprint.read(tiny)).of_stage("finetune")[0]
    metrics = zoo.epochs(own.id).iloc[-1]
    assert metrics["train_prediction"] > 0
    assert ("train_relation" in metrics) == (name == "weight_distillation")


@pytest.mark.parametrize(
    "objective",
    [
        {"name": "soft_distillation"},
        {"name": "weight_distillation", "layers": [[0, 7]], "teacher": "./elsewhere"},
    ],
)
def test_the_time_of_students_is_estimated(tiny, objective):
    tiny["stages"]["finetune"]["objective"] = objective
    planned, machine = plan(Blueprint.read(tiny)), Machine(("cpu",), 1, 1)
    tuner = AutoTuner(planned, machine, TrainRequest(), Calibration("cpu", 1))
    assert all(0 < stage.seconds < 60 for stage in estimate(planned, machine, tuner))


def test_the_time_of_a_student_has_its_teachers_in_it(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("VITARIUM_CACHE", str(tmp_path / "cache"))  # nothing is measured yet
    tiny["stages"]["finetune"]["objective"] = "weight_distillation"
    own = plan(Blueprint.read(tiny)).of_stage("finetune")[0].recipe
    calibration, request, call = Calibration("cpu", 1), [], Teacher.__call__
    monkeypatch.setattr(Teacher, "__call__", lambda *given: request.append(1) or call(*given))
    calibration.speed(own, 10)
    assert request
    request.clear()
    other = own.objective.config.changed({"teacher": "./elsewhere"})
    calibration.speed(own.changed({"objective": replace(own.objective, config=other)}), 10)
    assert not request  # it is the same kind


def test_a_student_that_cannot_be_taught_is_named_before_its_teacher_is_trained(tiny, tmp_path):
    tiny["stages"]["finetune"]["objective"] = {"name": "weight_distillation", "layers": [[3, 0]]}
    with pytest.raises(
        InvalidConfig, match=r"finetune\.objective\.teacher: layers: the student has"
    ):
        grow(Blueprint.read(tiny), tmp_path / "zoo", workers=0, progress=False)
    assert not (tmp_path / "zoo").exists()


def test_models_of_one_job_have_one_teacher(tiny, grown_zoo, monkeypatch):
    from vitarium.engine import worker

    tiny["stages"]["finetune"]["objective"] = "soft_distillation"
    children = plan(Blueprint.read(tiny)).of_stage("finetune")
    loaded = []
    monkeypatch.setattr(
        worker,
        "load_teacher",
        lambda spec, zoo: loaded.append(spec.parent) or load_teacher(spec, zoo),
    )
    for child in children:
        shutil.rmtree(grown_zoo.folder(child.id).path, ignore_errors=True)
    ended = trained(grown_zoo, *children)
    assert {event.status for event in ended.values()} == {"finished"}
    assert sorted(loaded) == sorted({child.parent for child in children})


@pytest.mark.parametrize("kind", ["parent", "id", "file", "folder"])
def test_teachers_travel_to_workers_that_do_not_see_the_zoo(tiny, tmp_path, grown_zoo, kind):
    other = plan(Blueprint.read(tiny)).of_stage("pretrain")[1].id
    settings = {"teacher": kind}
    if kind == "id":
        settings = {"teacher": other}
    if kind == "file":
        settings = {"teacher": str(written(tmp_path)), "teacher_architecture": VIT}
    if kind == "folder":
        (folder,) = export(grown_zoo, "timm", out=tmp_path / "timm", models=[other])
        settings = {"teacher": str(folder)}
    own = student(tiny, **settings)
    job = Job(str(grown_zoo.path), (own.factors(),), TrainOptions())
    goods = pack(grown_zoo, [own])
    expected = trained(grown_zoo, own)[own.id]
    shutil.rmtree(tmp_path / "timm", ignore_errors=True)
    (tmp_path / "teacher.safetensors").unlink(missing_ok=True)
    sent = []
    run_shipped(job, goods, sent.append)
    (ended,) = [event for event in sent if isinstance(event, Ended)]
    assert (ended.status, expected.status) == ("finished", "finished"), ended.message
    last = [one for one in sent if getattr(one, "path", "").endswith("epochs.jsonl")][-1]
    digest = grown_zoo.folder(own.id).checkpoint()[1]
    assert digest.encode() in last.content


def refused(tiny, zoo, error, match, **objective):
    own = student(tiny, **objective)
    with pytest.raises(error, match=match):
        load_teacher(own, zoo)
    ended = trained(zoo, own)[own.id]
    assert ended.status == "failed"


def test_a_model_that_is_not_in_the_zoo_fails_alone(tiny, grown_zoo):
    refused(tiny, grown_zoo, InvalidInput, r"unknown model '[f]{12}'", teacher="f" * 12)


def test_an_epoch_that_is_not_kept_is_refused(tiny, grown_zoo):
    id = plan(Blueprint.read(tiny)).of_stage("pretrain")[0].id
    refused(tiny, grown_zoo, InvalidInput, "has no weights of epoch 7", teacher=f"{id}@7")


def test_a_teacher_that_is_still_trained_is_refused(tiny, grown_zoo):
    id = plan(Blueprint.read(tiny)).of_stage("pretrain")[0].id
    (grown_zoo.folder(id).path / "result.json").unlink()
    refused(tiny, grown_zoo, InvalidInput, f"not trained to its end.*{id}@2", teacher=id)


def test_a_teacher_of_weights_that_are_not_finite_is_refused(tiny, tmp_path, grown_zoo):
    model = create_model("vit", num_classes=10, **SIZES)
    model.head.weight.data[3, 1] = torch.nan
    own = student(tiny, teacher=str(written(tmp_path, model)), teacher_architecture=VIT)
    with pytest.raises(InvalidInput, match=r"values in head.weight that are not finite"):
        load_teacher(own, grown_zoo)


def test_weights_of_another_digest_are_refused(tiny, tmp_path, grown_zoo):
    file, other = str(written(tmp_path)), "0" * 64
    settings = {"teacher": file, "teacher_architecture": VIT, "teacher_sha256": other}
    refused(tiny, grown_zoo, CorruptFile, f"SHA-256 .* {other}", **settings)


def test_weights_of_another_architecture_are_refused(tiny, tmp_path, grown_zoo):
    settings = {"teacher": str(written(tmp_path)), "teacher_architecture": VIT | {"depth": 2}}
    refused(tiny, grown_zoo, IncompatibleWeights, "do not fit", **settings)


def test_weights_without_that_head_are_refused(tiny, tmp_path, grown_zoo):
    file = written(tmp_path, create_model("vit", num_classes=0, **SIZES))
    settings = {"teacher": str(file), "teacher_architecture": VIT}
    refused(tiny, grown_zoo, IncompatibleWeights, "teacher_head", **settings)


@pytest.mark.parametrize("name", ["teacher.pth", "teacher.ckpt", "teacher.pth.tar"])
def test_a_file_of_a_training_program_teaches_without_its_wrappers(tiny, tmp_path, grown_zoo, name):
    torch.manual_seed(5)
    model = create_model("vit", num_classes=10, **SIZES).eval()
    wrapped = {f"module.model.{key}": tensor for key, tensor in model.state_dict().items()}
    torch.save({"state_dict": wrapped, "epoch": 3, "out": Path("out")}, tmp_path / name)
    settings = {"teacher": str(tmp_path / name), "teacher_architecture": VIT}
    teacher = load_teacher(student(tiny, **settings), grown_zoo)
    images = torch.randn(2, 1, 8, 8)
    assert torch.equal(logits(teacher, images), logits(model, images))


def test_a_file_of_two_models_is_no_teacher(tiny, tmp_path, grown_zoo):
    weights = create_model("vit", num_classes=10, **SIZES).state_dict()
    torch.save({"student": weights, "teacher": weights}, tmp_path / "both.pth")
    settings = {"teacher": str(tmp_path / "both.pth"), "teacher_architecture": VIT}
    refused(tiny, grown_zoo, InvalidInput, "holds several models, student and teacher", **settings)


def test_a_file_that_is_no_safetensors_is_refused(tiny, tmp_path, grown_zoo):
    file = tmp_path / "teacher.safetensors"
    torch.save({"head.weight": torch.ones(2)}, file)
    settings = {"teacher": str(file), "teacher_architecture": VIT}
    refused(tiny, grown_zoo, CorruptFile, "teacher.safetensors", **settings)


def test_a_folder_whose_weights_lie_elsewhere_is_refused(tiny, tmp_path, grown_zoo):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").symlink_to(written(tmp_path))
    refused(tiny, grown_zoo, UntrustedFile, "leads out of", teacher=str(folder))


def test_a_configuration_that_timm_does_not_build_is_refused(tiny, tmp_path, grown_zoo):
    written(tmp_path / "folder", name="model.safetensors")
    (tmp_path / "folder" / "config.json").write_text('{"architecture": "no_such_model"}')
    refused(tiny, grown_zoo, CorruptFile, "config.json", teacher=str(tmp_path / "folder"))


def test_every_refusal_is_an_error_of_vitarium(tiny, tmp_path, grown_zoo):
    for teacher in ("./nowhere", "nowhere.safetensors", "../..", "1@x"):
        extra = {"teacher_architecture": VIT} if teacher.endswith("safetensors") else {}
        with pytest.raises(VitariumError, match=r"teacher|model|epoch"):
            load_teacher(student(tiny, teacher=teacher, **extra), grown_zoo)
