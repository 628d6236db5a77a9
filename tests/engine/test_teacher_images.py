"""A teacher sees images as it was trained on them, whatever its student's normalization."""

import json
import shutil

import pytest
import torch

from vitarium import Blueprint, Zoo, export, plan
from vitarium.core.config import InvalidConfig
from vitarium.core.errors import InvalidInput
from vitarium.data.load import load
from vitarium.data.loader import stacked_batches
from vitarium.engine.check import ModelCheck
from vitarium.engine.parents import parents_in
from vitarium.engine.shipping import FileSent, pack, run_shipped, unload
from vitarium.engine.teacher_images import teacher_normalization
from vitarium.engine.teachers import load_teacher
from vitarium.engine.worker import Job, run_job
from vitarium.training import TrainOptions
from vitarium.training.train_state import TrainState
from vitarium.zoo import ModelFolder

CLASSES = json.dumps([str(n) for n in range(10)])
KNOWN = {"mean": "[0.9]", "std": "[0.2]", "classes": CLASSES}


def student(tiny, teacher, **changes):
    """A spec of a model that starts from scratch."""
    stage = tiny["stages"]["pretrain"] | changes
    stage["objective"] = {"name": "soft_distillation", "teacher": teacher}
    return plan(Blueprint.read({"name": "x", "stages": {"pretrain": stage}})).models[0]


def as_seen(spec, zoo, path):
    """The first batch of training as pixels in [0, 1], and what the teacher answers to it."""
    teacher, options = load_teacher(spec, zoo), TrainOptions()
    normalization = teacher_normalization(spec, zoo)
    member = TrainState(
        spec, ModelFolder(path / spec.id), None, options, teacher, None, normalization
    )
    batch = next(iter(stacked_batches([member.batches], 1)))
    chosen = spec.recipe.normalization
    data = load(spec.recipe.data)
    mean, std = chosen.values if chosen else (data.mean, data.std)
    (answers,) = member.teacher(batch.of_model(0)).values()
    return batch.images[0] * std[0] + mean[0], answers, teacher


@pytest.mark.parametrize("own", ["data", {"mean": 0.3, "std": 0.4}])
@pytest.mark.parametrize("augmentation", ["standard", {"name": "standard", "mixup": 0.5}])
def test_a_teacher_of_known_normalization_is_given_images_of_that(
    tiny, grown_zoo, imported_digits, tmp_path, own, augmentation
):
    (id,) = imported_digits(grown_zoo, KNOWN)
    spec = student(tiny, id, normalization=own, augmentation=augmentation)
    pixels, answers, teacher = as_seen(spec, grown_zoo, tmp_path)
    with torch.no_grad():
        expected = teacher((pixels - 0.9) / 0.2)
    torch.testing.assert_close(answers, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("data", ["mnist5k", "digits"])
def test_a_teacher_that_was_grown_sees_its_own_data_sets(tiny, grown_zoo, tmp_path, data):
    id = next(id for id in grown_zoo.ids() if not grown_zoo.spec(id).parent)
    digits = load(grown_zoo.spec(id).recipe.data)
    spec = student(tiny, id, data=data, normalization={"mean": 0.3, "std": 0.4})
    pixels, answers, teacher = as_seen(spec, grown_zoo, tmp_path)
    with torch.no_grad():
        expected = teacher((pixels - digits.mean[0]) / digits.std[0])
    torch.testing.assert_close(answers, expected, rtol=1e-3, atol=1e-3)


def test_where_nothing_is_known_or_all_is_equal_the_images_stay_as_they_are(
    tiny, grown_zoo, imported_digits, tmp_path
):
    (unknown,) = imported_digits(grown_zoo, {"classes": CLASSES})
    grown = next(id for id in grown_zoo.ids() if not grown_zoo.spec(id).parent)
    for number, id in enumerate((unknown, grown)):
        spec = student(tiny, id)
        options = TrainOptions()
        request = load_teacher(spec, grown_zoo), None, teacher_normalization(spec, grown_zoo)
        folder = ModelFolder(tmp_path / f"{number}")
        member = TrainState(spec, folder, None, options, *request)
        images = torch.randn(2, 1, 8, 8)
        assert member.teacher.prepare(images) is images


def test_a_folder_of_timm_says_how_its_images_are_normalized(tiny, grown_zoo, tmp_path):
    id = next(id for id in grown_zoo.ids() if not grown_zoo.spec(id).parent)
    (folder,) = export(grown_zoo, "timm", out=tmp_path / "timm", models=[id])
    config = json.loads((folder / "config.json").read_text())
    spec = student(tiny, str(folder))
    for mean, std, expected in (
        ([0.7], [0.1], ((0.7,), (0.1,))),
        ([0.4, 0.5, 0.6], [0.5], (pytest.approx((0.5,)), (0.5,))),
        (None, None, None),
    ):
        config["pretrained_cfg"] |= {"mean": mean, "std": std}
        (folder / "config.json").write_text(json.dumps(config))
        assert teacher_normalization(spec, grown_zoo) == expected
    for mean in ([0.1, 0.2], ["a"], "red"):
        config["pretrained_cfg"] |= {"mean": mean, "std": [0.1]}
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(InvalidInput, match=r"config\.json: mean"):
            teacher_normalization(spec, grown_zoo)


def test_a_teacher_whose_normalization_makes_no_sense_is_a_mistake_of_the_blueprint(
    tiny, grown_zoo, tmp_path
):
    id = next(id for id in grown_zoo.ids() if not grown_zoo.spec(id).parent)
    (folder,) = export(grown_zoo, "timm", out=tmp_path / "timm", models=[id])
    file = folder / "config.json"
    config = json.loads(file.read_text())
    config["pretrained_cfg"] |= {"mean": [0.5], "std": [0]}
    file.write_text(json.dumps(config))
    tiny["stages"]["pretrain"]["objective"] = {
        "name": "soft_distillation",
        "teacher": str(folder),
    }
    with pytest.raises(InvalidConfig, match=r"objective\.teacher: .*std\.0"):
        plan(Blueprint.read(tiny), parents_in(grown_zoo), ModelCheck(grown_zoo))


def test_what_is_trained_elsewhere_is_taught_the_same(tiny, grown_zoo, imported_digits, tmp_path):
    (id,) = imported_digits(grown_zoo, KNOWN)
    spec = student(tiny, id, epochs=1)
    here = shutil.copytree(grown_zoo.path, tmp_path / "here")
    job = Job(str(here), (spec.factors(),), TrainOptions())
    run_job(job, lambda event: None)
    packed, sent = pack(grown_zoo, [spec]), []
    run_shipped(job, packed, sent.append)
    for message in sent:
        if isinstance(message, FileSent):
            unload(message, grown_zoo)
    weights = grown_zoo.state_dict(spec.id)
    for name, tensor in Zoo.open(here).state_dict(spec.id).items():
        assert torch.equal(weights[name], tensor)
