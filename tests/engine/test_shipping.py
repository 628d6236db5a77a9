"""Models that are trained away from the zoo, without a cluster between."""

from pathlib import Path

import pytest
import torch

from vitarium import Blueprint, Zoo, grow, plan
from vitarium.core.errors import CorruptFile
from vitarium.engine.events import Ended, EpochEnded, Spent, Stepped
from vitarium.engine.shipping import FileSent, pack, run_shipped, unload
from vitarium.engine.worker import Job
from vitarium.training import TrainOptions

FORMAT_1 = Path(__file__).parents[1] / "zoo" / "format-1"


class Cut(Exception):
    """The worker is lost."""


@pytest.fixture
def grown(tiny, tmp_path):
    return grow(Blueprint.read(tiny), tmp_path / "grown", workers=0, stacked=1, progress=False).zoo


@pytest.fixture
def planned(tiny):
    return plan(Blueprint.read(tiny))


def content(zoo, model):
    folder = zoo.folder(model).path
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*.safetensors")}


def ship(zoo, spec, lost_after=None):
    """Train a model away; give what was sent, but for what comes as time allows.

    With `lost_after` only so many of these messages arrive.
    """
    arrived = []

    def send(message):
        if isinstance(message, Stepped | Spent):
            return
        if len(arrived) == lost_after:
            raise Cut
        arrived.append(message)
        if isinstance(message, FileSent):
            unload(message, zoo)

    job = Job(str(zoo.path), (spec.factors(),), TrainOptions())
    run_shipped(job, pack(zoo, [spec]), send)
    return arrived


def test_files_arrive_before_what_speaks_of_them(planned, tmp_path):
    arrived = ship(Zoo.create(tmp_path / "zoo"), planned.models[0])
    names = [m.path.rpartition("/")[2] for m in arrived if isinstance(m, FileSent) and m.content]
    assert names[:4] == [
        "model.json",
        "epoch-0000.packed",
        "progress-0000.safetensors",
        "epochs.jsonl",
    ]
    assert names[-3:] == ["epoch-0002.packed", "epochs.jsonl", "result.json"]
    kinds = [type(message) for message in arrived]
    assert kinds.index(EpochEnded) == 4
    assert kinds[-1] is Ended


def test_parents_and_children_are_those_of_a_zoo_at_hand(planned, grown, tmp_path):
    zoo = Zoo.create(tmp_path / "zoo")
    child = planned.of_stage("finetune")[0]
    for spec in (planned[child.parent], child):
        ship(zoo, spec)
        assert content(zoo, spec.id) == content(grown, spec.id)
        assert zoo.folder(spec.id).status == "finished"


def test_a_worker_lost_after_any_message_costs_the_running_epoch_alone(planned, grown, tmp_path):
    spec = planned.models[0]
    for moment in range(len(ship(Zoo.create(tmp_path / "whole"), spec))):
        zoo = Zoo.create(tmp_path / f"zoo-{moment}")
        with pytest.raises(Cut):
            ship(zoo, spec, lost_after=moment)
        finished = len(zoo.folder(spec.id).epochs())
        zoo.folder(spec.id).progress()
        again = ship(zoo, spec)
        told = [message.epoch for message in again if isinstance(message, EpochEnded)]
        assert told == list(range(finished, 3))
        assert content(zoo, spec.id) == content(grown, spec.id)
        assert zoo.folder(spec.id).status == "finished"


def test_a_parent_of_format_1_arrives_as_it_is(tmp_path):
    zoo, away = Zoo.open(FORMAT_1), Zoo.create(tmp_path / "away")
    child = next(spec for spec in map(zoo.spec, zoo.ids()) if spec.parent)
    for path, file in pack(zoo, [child]).items():
        unload(FileSent(path, file), away)
    sent, kept = (each.state_dict(child.parent, child.parent_epoch) for each in (away, zoo))
    assert sent.keys() == kept.keys()
    assert all(torch.equal(sent[name], kept[name]) for name in kept)


def test_a_damaged_parent_is_not_shipped(planned, grown):
    child = planned.of_stage("finetune")[0]
    file = grown.folder(child.parent).checkpoints.path(2)
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(CorruptFile, match=file.name):
        pack(grown, [child])
