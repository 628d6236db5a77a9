"""A zoo is written by one process at a time."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from vitarium.core.errors import DiskFull, NotWritable, ZooInUse
from vitarium.zoo import lock
from vitarium.zoo.lock import held

HOLD = """
import sys, time
from pathlib import Path
from vitarium.zoo.lock import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(lock, "_GRACE", 0.2)


@pytest.fixture
def other(tmp_path):
    """Another process that holds the lock until a line is written to it."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_zoo_that_another_process_grows_is_refused_with_its_name_and_since_when(other, tmp_path):
    with pytest.raises(ZooInUse) as caught, held(tmp_path):
        pass
    for part in (f"process {other.pid}", "since 20", str(tmp_path), "wait=True"):
        assert part in str(caught.value)


def test_waiting_says_for_whom_and_goes_on_when_the_other_is_done(other, tmp_path):
    messages = []

    def say(text):
        messages.append(text)
        threading.Timer(0.3, lambda: other.communicate("done\n")).start()

    with held(tmp_path, wait=True, say=say):
        assert f"process {other.pid}" in messages[0]
        assert str(os.getpid()) in lock.holder(tmp_path)


def test_the_lock_of_a_dead_process_is_taken_over(other, tmp_path):
    other.send_signal(signal.SIGKILL)
    other.wait()
    messages = []
    with held(tmp_path, say=messages.append):
        assert f"process {other.pid}" in messages[0]
        assert "has ended" in messages[0]
    assert not (tmp_path / ".holder.json").exists()


@pytest.mark.parametrize(
    "note",
    [
        b"",
        b"\xff\xfe",
        b"[" * 100_000,
        b"[]",
        b"1",
        b'{"user": "x"}',
        b'{"user": "x", "host": "y", "pid": 1, "since": 1e300}',
        b'{"user": "x", "host": "y", "pid": 1, "since": "now"}',
        b'{"user": "x\\nerror: y", "host": "y", "pid": 1, "since": 1}',
        None,
    ],
)
def test_whatever_a_note_of_the_holder_says_the_lock_works(tmp_path, note):
    path = tmp_path / ".holder.json"
    if note is None:
        path.mkdir()
    else:
        path.write_bytes(note)
    messages = []
    with held(tmp_path, say=messages.append):
        assert (str(os.getpid()) in lock.holder(tmp_path)) == (note is not None)
    assert messages == ["taken over from another process, which has ended"]


def test_a_lock_that_was_given_back_can_be_taken_again(tmp_path):
    for _ in range(2):
        with held(tmp_path):
            pass


def test_a_second_run_in_the_same_process_is_refused_too(tmp_path):
    with held(tmp_path), pytest.raises(ZooInUse), held(tmp_path):
        pass


def test_a_zoo_that_cannot_be_written_is_refused_at_once(disk, remount_read_only):
    zoo = disk("100k")
    (zoo / "zoo.json").touch()
    remount_read_only(zoo)
    with (
        pytest.raises(NotWritable, match="copy the zoo and work on the copy"),
        held(zoo, wait=True),
    ):
        pass


def test_a_full_disk_is_refused_at_once_and_the_lock_given_back(disk):
    zoo = disk("16k")
    (zoo / ".lock").touch()
    (zoo / "ballast").write_bytes(bytes(16 << 10))
    with pytest.raises(DiskFull), held(zoo):
        pass
    (zoo / "ballast").unlink()
    with held(zoo):
        pass


def test_whether_a_zoo_is_held_is_seen_without_taking_it(tmp_path):
    assert lock.is_held(tmp_path) is False  # there is no file, and none is made
    assert list(tmp_path.iterdir()) == []
    with held(tmp_path):
        assert lock.is_held(tmp_path) is True
    assert lock.is_held(tmp_path) is False
    with held(tmp_path):  # who looked does not stand in the way
        pass


def test_a_lock_that_is_a_link_is_not_looked_at(tmp_path):
    (tmp_path / "other").touch()
    (tmp_path / ".lock").symlink_to(tmp_path / "other")
    assert lock.is_held(tmp_path) is False
