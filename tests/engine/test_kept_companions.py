"""`keep_companions`: a decoder stays in the zoo beside its model, and a later stage goes on with it."""

import shutil

import pytest
import torch

from vitarium import Blueprint, Zoo, plan
from vitarium.core.config import InvalidConfig
from vitarium.core.errors import CorruptFile, InvalidInput
from vitarium.engine.check import ModelCheck
from vitarium.engine.events import Ended
from vitarium.engine.kept_companions import parent_companions
from vitarium.engine.shipping import pack, run_shipped, unload
from vitarium.engine.tuning.auto_tuner import AutoTuner, TrainRequest
from vitarium.engine.worker import Job, run_job
from vitarium.training import EpochEnded, TrainOptions, train
from vitarium.training.train_state import TrainState
from vitarium.zoo import ModelFolder
from vitarium.zoo.combine import archive, merge_zoos
from vitarium.zoo.removal import remove
from vitarium.zoo.verify import verify

MAE = {"name": "mae", "decoder_dim": 8, "decoder_depth": 1, "decoder_heads": 2}
PRETRAIN = {
    "architecture": {"name": "vit", "img_size": 8, "patch_size": 2, "in_chans": 1, "embed_dim": 8,
                     "depth": 2, "num_heads": 2},
    "data": {"name": "digits", "train_limit": 48},
    "objective": MAE,
    "optimizer": {"name": "adamw", "lr": 0.003},
    "epochs": 2,
    "batch_size": 16,
    "keep_companions": True,
}  # fmt: skip
EXPLORA = {"start": "pretrain", "adaptation": {"name": "explora", "rank": 2}}


def planned(pretrain=(), **stages):
    """The models of a plan: of `pretrain` with changes, and of stages with its settings."""
    own = PRETRAIN | dict(pretrain)
    values = {name: own | dict(stage) for name, stage in stages.items()}
    return plan(Blueprint.read({"name": "kept", "stages": {"pretrain": own, **values}}))


def grow(zoo, *specs):
    """Train them one after the other in this process; how each ended, by id."""
    ended = {}

    def emit(event):
        if isinstance(event, Ended):
            ended[event.model] = event

    for spec in specs:
        run_job(Job(str(zoo.path), (spec.factors(),), TrainOptions()), emit)
    return ended


@pytest.fixture(scope="module")
def grown_once(tmp_path_factory):
    """A pre-trained model, and one that goes on with its decoder."""
    zoo = Zoo.create(tmp_path_factory.mktemp("kept") / "zoo")
    grow(zoo, *planned(goes_on=EXPLORA).models)
    return zoo


@pytest.fixture
def zoo(grown_once, tmp_path):
    return Zoo.open(shutil.copytree(grown_once.path, tmp_path / "zoo"))


@pytest.fixture
def pretrained(zoo):
    return planned().models[0].id


def state(zoo, id):
    return zoo.companions(id).state_dict()


def kept_file(zoo, id):
    (file,) = zoo.folder(id).path.glob("companions-*.safetensors")
    return file


def assert_equal(first, second):
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def test_the_module_is_the_one_that_was_trained(zoo, pretrained, tmp_path):
    spec, states = planned().models[0], []

    class Watched(TrainState):
        def scores(self, *inputs):
            states.append({n: t.clone() for n, t in self.companions.state_dict().items()})
            return super().scores(*inputs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vitarium.training.loop.TrainState", Watched)
        train(spec, ModelFolder(tmp_path / "watched" / spec.id))
    companions = zoo.companions(pretrained)
    assert not companions.training
    assert_equal(companions.state_dict(), states[-1])
    assert_equal(zoo[pretrained].companions().state_dict(), states[-1])
    names = zoo.state_dict(pretrained)
    assert not any("decoder" in name for name in names)


def test_a_run_that_was_killed_keeps_the_same_bits(zoo, pretrained, tmp_path):
    class Killed(Exception):
        pass

    def kill(event):
        if isinstance(event, EpochEnded) and event.epoch == 1:
            raise Killed

    spec, folder = planned().models[0], ModelFolder(tmp_path / "z" / "models" / pretrained)
    with pytest.raises(Killed):
        train(spec, folder, report=kill)
    assert folder.status == "training"
    train(spec, folder)
    killed = folder.companions()
    assert killed.path.name == "companions-0002.safetensors"
    assert killed.path.read_bytes() == kept_file(zoo, pretrained).read_bytes()
    assert len(list(folder.path.glob("companions-*"))) == 1


def test_a_later_stage_goes_on_with_them(zoo, pretrained):
    _, spec = planned(goes_on=EXPLORA).models
    parent = zoo.state_dict(pretrained)
    continued = TrainState(
        spec,
        ModelFolder(zoo.path.parent / "continued" / spec.id),
        parent,
        TrainOptions(),
        parent_companions=parent_companions(spec, zoo),
    )
    assert_equal(continued.companions.state_dict(), state(zoo, pretrained))
    assert "companions are the parent's" in zoo.folder(spec.id).result()["message"]
    learned = {name for name, p in continued.model.named_parameters() if p.requires_grad}
    assert any("adaptation" in name for name in learned)
    assert "pos_embed" not in learned
    first = zoo.folder(spec.id).epochs()[1].metrics["train_loss"]
    assert first < zoo.folder(pretrained).epochs()[1].metrics["train_loss"]


def test_it_trains_away_from_the_zoo_with_the_same_bits(zoo, tmp_path):
    first, spec = planned(goes_on=EXPLORA).models
    away = Zoo.create(tmp_path / "away")
    shutil.copytree(zoo.folder(first.id).path, away.folder(first.id).path)
    sent = []
    job = Job(str(away.path), (spec.factors(),), TrainOptions())
    run_shipped(job, pack(away, [spec]), sent.append)
    for message in sent:
        if hasattr(message, "content"):
            unload(message, away)
    assert kept_file(away, spec.id).read_bytes() == kept_file(zoo, spec.id).read_bytes()
    finetune = planned(goes_on=EXPLORA, last={"start": "goes_on", "objective": "supervised",
                                              "keep_companions": False}).models[2]  # fmt: skip
    assert not any("companions" in path for path in pack(zoo, [finetune]))


@pytest.mark.parametrize(
    ("pretrain", "stage", "remark"),
    [
        ({"keep_companions": False}, {}, "companions are new: the parent kept none"),
        ({}, {"start": {"stage": "pretrain", "epoch": 1}}, "those after epoch 2, not 1"),
        ({}, {"objective": "supervised", "keep_companions": False}, ""),
    ],
)
def test_what_does_not_go_on_says_so(zoo, tmp_path, pretrain, stage, remark):
    own = Zoo.create(tmp_path / "own")
    first, spec = planned(pretrain, later={"start": "pretrain", "epochs": 1} | stage).models
    message = grow(own, first, spec)[spec.id].message
    assert remark in message
    assert bool(remark) == ("companions" in message)


def test_a_damaged_file_is_named_and_not_loaded(zoo, pretrained):
    file = kept_file(zoo, pretrained)
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    (fault,) = verify(zoo.path)
    assert fault.path.endswith(file.name)
    assert "companions" in fault.lost
    with pytest.raises(CorruptFile, match=file.name):
        zoo.companions(pretrained)
    child = planned(child={"start": "pretrain", "seed": 5}).models[1]
    ended = grow(zoo, child)[child.id]
    assert ended.status == "failed"
    assert file.name in ended.message
    with pytest.raises(CorruptFile, match=file.name):
        archive(zoo, [pretrained], out=zoo.path.parent / "copy")
    file.unlink()
    assert [fault.path for fault in verify(zoo.path)] == [str(file.relative_to(zoo.path))]


def test_a_file_of_another_model_is_not_taken_for_its_own(zoo, pretrained):
    other = planned(goes_on=EXPLORA).models[1].id
    shutil.copy(kept_file(zoo, other), kept_file(zoo, pretrained))
    with pytest.raises(CorruptFile, match="not the checkpoint that epochs"):
        zoo.companions(pretrained)
    assert len(verify(zoo.path, deep=True)) == 1


def test_copies_and_removal_take_them_along(zoo, pretrained, tmp_path):
    copy = Zoo.open(archive(zoo, [pretrained], out=tmp_path / "copy"))
    merged = merge_zoos([copy], tmp_path / "merged").zoo
    for each in (copy, merged):
        assert_equal(state(each, pretrained), state(zoo, pretrained))
        assert verify(each.path, deep=True) == []
    files = [file for file in merged.folder(pretrained).path.rglob("*") if file.is_file()]
    assert kept_file(merged, pretrained) in files
    sizes = [file.stat().st_size for file in files]
    assert remove(merged, [pretrained]).nbytes == sum(sizes)
    assert not merged.folder(pretrained).path.exists()
    grow(merged, planned().models[0])  # what was removed is compared with what is grown again
    message = zoo.folder(pretrained).result()["message"]
    assert merged.folder(pretrained).result()["message"] == message


def test_one_that_diverges_keeps_those_of_its_last_finished_epoch(zoo, pretrained, monkeypatch):
    one_epoch = planned({"epochs": 1}).models[0]
    longer = planned({"epochs": 3, "seed": 0}).models[0]
    fault = "weights were not finite"
    monkeypatch.setattr(TrainState, "fault", lambda self, epoch: fault if epoch == 2 else None)
    grow(zoo, longer)
    assert zoo.folder(longer.id).status == "diverged"
    assert kept_file(zoo, longer.id).name == "companions-0001.safetensors"
    monkeypatch.undo()
    grow(zoo, one_epoch)
    assert_equal(state(zoo, longer.id), state(zoo, one_epoch.id))
    assert verify(zoo.path, deep=True) == []


def test_one_that_stops_early_keeps_those_of_its_last_epoch(zoo):
    stopping = {"metric": "val_knn_accuracy", "patience": 1, "min_delta": 1.0}
    spec = planned({"epochs": 5, "early_stopping": stopping}).models[0]
    grow(zoo, spec)
    last = zoo.folder(spec.id).epochs()[-1].number
    assert 1 <= last < 5
    assert kept_file(zoo, spec.id).name == f"companions-{last:04d}.safetensors"


def test_models_without_any_are_refused(zoo, tmp_path):
    with pytest.raises(InvalidConfig, match="'supervised' brings no companions to keep"):
        planned({"objective": "supervised"})
    without = planned({"keep_companions": False, "epochs": 1}).models[0]
    assert "keep_companions" not in without.recipe.identity()
    grow(zoo, without)
    with pytest.raises(InvalidInput, match="keep_companions: true"):
        zoo.companions(without.id)
    assert "companions" not in (zoo.folder(without.id).path / "epochs.jsonl").read_text()


@pytest.mark.parametrize("grown", [False, True])
def test_other_settings_than_the_parents_are_refused_before_training(zoo, tmp_path, grown):
    other = EXPLORA | {"objective": MAE | {"decoder_dim": 16}}
    folder = zoo if grown else Zoo.create(tmp_path / "new")
    with pytest.raises(InvalidConfig) as refused:
        ModelCheck(folder).check_plan(planned(goes_on=other))
    (problem,) = refused.value.problems
    assert problem.path == ("stages", "goes_on", "objective")
    assert "give the objective its parent's decoder_dim 8" in problem.message
    spec = planned(goes_on=other).models[1]
    if grown:
        assert "decoder_dim 8" in grow(zoo, spec)[spec.id].message


@pytest.mark.parametrize("grown", [False, True])
def test_the_check_says_what_becomes_of_them(zoo, tmp_path, grown):
    check = ModelCheck(zoo if grown else Zoo.create(tmp_path / "new"))
    early = {"start": {"stage": "pretrain", "epoch": 1}}
    check.check_plan(planned(later=EXPLORA | {"seed": 7}, early=early))
    assert check.adaptations["later"] == ["companions are the parent's"]
    assert check.adaptations["early"] == [
        "companions are new: the parent's are those after epoch 2, not 1"
    ]
    last = planned({"keep_companions": False}, later={"start": "pretrain"})
    check.check_plan(last)
    assert check.adaptations["later"][1:] == ["companions are new: the parent kept none"]


def test_an_objective_that_runs_parts_of_the_model_is_not_compiled(zoo, tmp_path):
    spec = planned({"seed": 3}).models[0]
    with pytest.raises(InvalidInput, match="train without compilation"):
        train(spec, ModelFolder(tmp_path / spec.id), options=TrainOptions(compiled=True))
    tuner = AutoTuner.__new__(AutoTuner)
    tuner.request, notices = TrainRequest(compiled=True), []
    tuner._notify = notices.append
    assert not tuner._may_compile(spec)
    assert notices == [
        "pretrain: not compiled, since its objective runs parts of the model by themselves"
    ]
