"""A zoo that grows, as the page sees it: from growth.json, whoever writes that."""

import json
import os
import socket
import time

import pytest

from vitarium.core import files
from vitarium.page.live import SILENT_SECONDS, GrowthWatch, training_curve
from vitarium.zoo import growth_status
from vitarium.zoo._model_files import Epoch, read_epochs
from vitarium.zoo.growth_status import GrowthStatus, StageStatus, TrainingModel
from vitarium.zoo.lock import held

STAGE = StageStatus(name="pretrain", models=3, epochs=6, finished=1, training=1, epochs_done=3.0)


def status(**changes):
    facts = {"name": "tiny", "host": socket.gethostname(), "pid": os.getpid(), "workers": 2}
    times = {"started": time.time() - 10, "beat": time.time()}
    return GrowthStatus(**{**facts, **times, "stages": [STAGE], **changes})


def live(client):
    response = client.get("/api/live.json")
    assert response.status_code == 200
    return response.json()


def test_without_a_file_nothing_grows(client):
    answer = live(client)
    assert (answer["state"], answer["growth"], answer["curves"]) == ("none", None, {})
    assert client.get("/api/zoo.json").json()["growth"] == "none"


def test_while_the_zoo_is_held_it_grows_and_has_curves(client, kept_zoo):
    id = kept_zoo.ids()[0]
    about = {"model": id, "stage": "pretrain", "label": "seed=1", "worker": 1}
    training = TrainingModel(**about, since=1.0, epoch=2, epochs=2, phase="train")
    with held(kept_zoo.path):
        growth_status.write(kept_zoo.path, status(in_training=1, training=[training]))
        answer = live(client)
        assert client.get("/api/zoo.json").json()["growth"] == "growing"
    assert answer["state"] == "growing"
    assert answer["growth"]["stages"] == [STAGE.model_dump()]
    assert answer["growth"]["training"][0]["phase"] == "train"
    assert answer["elapsed"] == pytest.approx(10, abs=5)
    curve, epochs = answer["curves"][id], kept_zoo.folder(id).epochs()
    assert curve["epochs"] == [epoch.number for epoch in epochs]
    for name, values in curve["metrics"].items():
        assert values == [epoch.metrics.get(name) for epoch in epochs]
    assert "val_accuracy" in curve["metrics"]


def test_curves_are_read_again_when_an_epoch_is_added(kept_zoo):
    id = kept_zoo.ids()[0]
    path = kept_zoo.folder(id).path / "epochs.jsonl"
    content = path.read_bytes()
    lines = files.read_lines(path, sealed=True)
    files.write_lines(path, lines[:1])
    watch = GrowthWatch(kept_zoo.path)
    assert watch._curves_of([id])[id]["epochs"] == [0]
    path.write_bytes(content)
    assert watch._curves_of([id])[id]["epochs"] == [line["number"] for line in lines]
    path.unlink()  # it is being replaced, or was never there
    assert GrowthWatch(kept_zoo.path)._curves_of([id, "0" * 12]) == {}


def test_who_ended_without_a_word_was_interrupted(client, kept_zoo):
    growth_status.write(kept_zoo.path, status())
    answer = live(client)
    assert (answer["state"], answer["growth"]["state"]) == ("interrupted", "growing")
    assert answer["curves"] == {}


@pytest.mark.parametrize("state", ["finished", "incomplete", "interrupted", "broken"])
def test_how_it_ended_stays(client, kept_zoo, state):
    growth_status.write(kept_zoo.path, status(state=state, started=100.0, beat=130.0))
    answer = live(client)
    assert (answer["state"], answer["elapsed"]) == (state, 30.0)


def test_who_ends_while_it_is_looked_at_has_ended_by_itself(kept_zoo, monkeypatch):
    """The lock is free already, but what was read before is from before the end."""
    answers = iter([status(), status(state="finished")])
    monkeypatch.setattr(growth_status, "read", lambda zoo: next(answers))
    assert GrowthWatch(kept_zoo.path).state() == "finished"


class Clocks:
    """Of the machine that looks on, which may differ from the one that grows."""

    def __init__(self, wall):
        self.wall, self.now = wall, 0.0

    def watch(self, zoo):
        return GrowthWatch(zoo, clock=lambda: self.now, wall_clock=lambda: self.wall + self.now)


def test_on_another_machine_the_heartbeat_counts(kept_zoo):
    beat = 5000.0
    clocks = Clocks(wall=beat + 2)
    watch = clocks.watch(kept_zoo.path)
    growth_status.write(kept_zoo.path, status(host="elsewhere", started=4000.0, beat=beat))
    assert watch.state() == "growing"
    clocks.now = SILENT_SECONDS - 3
    assert watch.state() == "growing"
    clocks.now = SILENT_SECONDS
    assert watch.state() == "silent"
    answer = watch.live()
    assert (answer["quiet"], answer["elapsed"]) == (SILENT_SECONDS + 2, 1000.0)
    growth_status.write(kept_zoo.path, status(host="elsewhere", started=4000.0, beat=beat + 80))
    assert watch.state() == "growing"


def test_clocks_that_differ_are_no_silence(kept_zoo):
    clocks = Clocks(wall=10_000.0)
    watch = clocks.watch(kept_zoo.path)
    growth_status.write(kept_zoo.path, status(host="elsewhere", beat=5000.0))
    assert watch.state() == "silent"  # as far as one look can tell
    growth_status.write(kept_zoo.path, status(host="elsewhere", beat=5005.0))
    assert watch.state() == "growing"
    growth_status.write(kept_zoo.path, status(host="elsewhere", beat=20_000.0))
    assert watch.live()["quiet"] == 0.0


HOSTILE = {
    "no JSON": b"{",
    "no object": b"[1]",
    "other types": json.dumps({**status().model_dump(), "stages": 3}).encode(),
    "a path as an id": json.dumps(
        {
            **status().model_dump(),
            "training": [
                {"model": "../../etc/passwd", "stage": "", "label": "", "worker": 0, "since": 0}
            ],
        }
    ).encode(),
    "no number": json.dumps({**status().model_dump(), "beat": float("nan")}).encode(),
    "endless": b" " * (2 << 20),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_what_growing_did_not_write_is_not_shown(client, kept_zoo, content):
    (kept_zoo.path / growth_status.FILE).write_bytes(content)
    answer = live(client)
    assert (answer["state"], answer["growth"]) == ("unreadable", None)
    assert client.get("/api/models.json").status_code == 200


def test_a_link_is_not_followed(client, kept_zoo, tmp_path):
    (tmp_path / "secret").write_text(status(name="secret").model_dump_json())
    (kept_zoo.path / growth_status.FILE).symlink_to(tmp_path / "secret")
    assert live(client)["state"] == "unreadable"


def test_long_trainings_are_thinned_to_their_shape():
    epochs = [Epoch(n, {"val_loss": 1 / (n + 1), "epoch_lr": 0.1}, None) for n in range(1001)]
    curve = training_curve(epochs)
    assert len(curve["epochs"]) <= 101
    assert (curve["epochs"][0], curve["epochs"][-1]) == (0, 1000)
    assert curve["metrics"] == {"val_loss": [1 / (n + 1) for n in curve["epochs"]]}
    assert training_curve([]) == {"epochs": [], "metrics": {}}
    odd = training_curve([Epoch(0, {"val_loss": float("nan")}, None), Epoch(1, {}, None)])
    assert odd["metrics"]["val_loss"] == [None, None]


def test_epochs_are_read_as_the_zoo_reads_them(kept_zoo):
    for id in kept_zoo.ids():
        folder = kept_zoo.folder(id)
        assert read_epochs(folder.path) == folder.epochs()
