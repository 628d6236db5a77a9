"""growth.json follows a zoo that grows, and costs it nothing that counts."""

import json
import os
import sys
import threading

import pytest

from vitarium import Blueprint, plan
from vitarium.core.errors import DiskFull
from vitarium.engine.events import Ended, EpochEnded, Started
from vitarium.engine.grow import grow
from vitarium.engine.progress import status as module
from vitarium.engine.progress.display import labels
from vitarium.engine.progress.status import StatusWriter, command_line
from vitarium.engine.progress.tracker import Tracker
from vitarium.zoo import growth_status
from vitarium.zoo.verify import verify

PLAIN = {"precision": "fp32", "compiled": False, "stacked": 1, "workers": 0, "progress": False}


@pytest.fixture
def planned(tiny):
    return plan(Blueprint.read(tiny))


@pytest.fixture
def writer(planned, tmp_path):
    tracker = Tracker(planned, [], {}, labels(planned), workers=2, now=100.0)
    return StatusWriter(tmp_path, tracker, lambda: 30.0, clock=lambda: 101.0)


def test_it_is_there_from_the_beginning_and_says_how_it_ended(writer, planned, tmp_path):
    with writer:
        status = growth_status.read(tmp_path)
        assert (status.state, status.started, status.pid) == ("growing", 100.0, os.getpid())
        assert status.seconds_left is None
        for model in planned.models:
            writer(Started(model.id))
            writer(Ended(model.id, "finished"))
        assert writer.status().seconds_left == 30.0
    status = growth_status.read(tmp_path)
    assert (status.state, status.seconds_left) == ("finished", 0.0)
    assert [(s.finished, s.models) for s in status.stages] == [(2, 2), (4, 4)]


@pytest.mark.parametrize(
    ("error", "state", "message"),
    [
        (KeyboardInterrupt(), "interrupted", ""),
        (ZeroDivisionError("by 0"), "broken", "ZeroDivisionError('by 0')"),
    ],
)
def test_it_says_what_ended_it(writer, tmp_path, error, state, message):
    with pytest.raises(type(error)), writer:
        raise error
    status = growth_status.read(tmp_path)
    assert (status.state, status.message) == (state, message)


def test_models_that_failed_leave_it_incomplete(writer, planned, tmp_path):
    with writer:
        writer(Ended(planned.models[0].id, "failed", "no data"))
    assert growth_status.read(tmp_path).state == "incomplete"


def test_it_is_written_while_nothing_happens_and_once_something_does(
    writer, planned, tmp_path, monkeypatch
):
    written, write = threading.Semaphore(0), growth_status.write

    def noted(*arguments):
        write(*arguments)
        written.release()

    monkeypatch.setattr(growth_status, "write", noted)
    monkeypatch.setattr(module, "_WRITE_SECONDS", 0.01)
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.0)
    with writer:
        for _ in range(3):  # the first one, and two without any event
            assert written.acquire(timeout=60)
        monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 1e6)
        writer(Started(planned.models[0].id))
        for _ in range(1000):
            assert written.acquire(timeout=60)
            if growth_status.read(tmp_path).in_training:
                break
        assert growth_status.read(tmp_path).in_training == 1


def test_the_time_left_is_asked_at_most_once_a_second(planned, tmp_path):
    times, writes = iter([100.0, 100.5, 101.0, 101.5, 102.6, 103.0]), []
    tracker = Tracker(planned, [], {}, labels(planned), workers=1, now=100.0)

    def seconds_left():
        writes.append(len(writes))
        return 50.0

    writer = StatusWriter(tmp_path, tracker, seconds_left, clock=lambda: next(times))
    for epoch in range(4):
        writer(EpochEnded(planned.models[0].id, epoch, {}))
    assert len(writes) == 3  # at 100.5, 101.5 and 102.6
    assert writer.status().seconds_left == pytest.approx(50.0 - 0.4)


def test_a_full_disk_costs_the_file_alone(tiny, tmp_path, monkeypatch):
    def refuse(path, status):
        raise DiskFull(path)

    monkeypatch.setattr(growth_status, "write", refuse)
    growth = grow(tiny, tmp_path / "zoo", stages=["pretrain"], **PLAIN)
    assert growth.complete
    assert not (tmp_path / "zoo" / growth_status.FILE).exists()


def test_a_zoo_that_was_grown_has_it_and_is_whole(tiny, tmp_path):
    growth = grow(tiny, tmp_path / "zoo", **PLAIN)
    status = growth_status.read(tmp_path / "zoo")
    assert (status.name, status.state, status.in_training) == ("tiny", "finished", 0)
    assert sum(stage.finished for stage in status.stages) == len(growth.grown) == 6
    assert {ended.model for ended in status.recent} == {*growth.grown}
    for ended in status.recent:
        last = growth.zoo.folder(ended.model).epochs()[-1]
        assert ended.metrics == last.metrics
    assert verify(growth.zoo.path, deep=True) == []
    again = grow(tiny, tmp_path / "zoo", **PLAIN)
    status = growth_status.read(tmp_path / "zoo")
    assert sum(stage.existing for stage in status.stages) == len(again.existing) == 6


def test_a_leftover_of_a_killed_process_goes_with_the_next(writer, tmp_path):
    leftover = tmp_path / f".{growth_status.FILE}.123.tmp"
    leftover.touch()
    with writer:
        assert not leftover.exists()


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["/venv/bin/vitarium", "grow", "a b.yaml"], "vitarium grow 'a b.yaml'"),
        (["/lib/vitarium/__main__.py", "demo"], "vitarium demo"),
        (["notebook.py", "grow"], ""),
    ],
)
def test_a_command_is_remembered_as_it_was_typed(monkeypatch, arguments, command):
    monkeypatch.setattr(sys, "argv", arguments)
    assert command_line() == command


def test_any_reader_of_json_can_follow(writer, tmp_path):
    with writer:
        values = json.loads((tmp_path / growth_status.FILE).read_bytes())
    assert values["stages"][0]["models"] == 2
    assert values["format"] == 1
