"""Processes that are forked from one that has imported the libraries."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from vitarium.core.errors import VitariumError
from vitarium.engine.pools import _worker_server
from vitarium.engine.pools._fork_server import ForkServer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere workers are spawned")


@pytest.fixture
def server(tmp_path):
    tally = tmp_path / "imports"
    return ForkServer(["engine.fork_targets"], {**os.environ, "IMPORTS": str(tally)})


def fork(server, target, *arguments, **options):
    return server.fork(f"engine.fork_targets:{target}", arguments, **options)


def report(server, *arguments):
    """What a forked process says of itself."""
    reader, writer = os.pipe()
    process = fork(server, "report", *arguments, files=[writer])
    os.close(writer)
    with os.fdopen(reader) as file:
        process_report = json.load(file)
    assert process.wait() == 0
    return process_report


def is_running(pid):
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_fork_has_what_a_child_of_this_process_would_have(server, tmp_path, monkeypatch):
    report(server)
    # changed after the server was started
    monkeypatch.setenv("VARIABLE", "ä")
    monkeypatch.syspath_prepend("/somewhere")
    monkeypatch.chdir(tmp_path)
    process = report(server, "a", "b c")
    assert process.pop("parent") != os.getpid()
    assert process == {
        "arguments": ["a", "b c"],
        "folder": str(tmp_path),
        "variable": "ä",
        "path": "/somewhere",
        "leads its session": True,
    }


def test_modules_are_imported_once(server, tmp_path):
    parents = {report(server)["parent"] for _ in range(3)}
    assert len(parents) == 1
    assert (tmp_path / "imports").read_text() == "x"


def test_how_a_process_ended_is_known(server, capfd):
    processes = [fork(server, "leave", "0"), fork(server, "leave", "7"), fork(server, "fail")]
    assert [process.wait() for process in processes] == [0, 7, 1]
    assert [process.wait() for process in processes] == [0, 7, 1]
    assert "RuntimeError: a fault on purpose" in capfd.readouterr().err


def test_killed_processes_are_gone_and_others_stay(server):
    first, second = (fork(server, "wait") for _ in range(2))
    first.kill()
    assert first.wait() == -signal.SIGKILL
    first.kill()
    assert not is_running(first.pid)
    assert is_running(second.pid)
    second.kill()
    second.wait()


def test_a_server_that_was_killed_is_replaced(server):
    process = fork(server, "leave", "0")
    assert process.wait() == 0
    waiting, parent = fork(server, "wait"), report(server)["parent"]
    os.kill(parent, signal.SIGKILL)
    with pytest.raises(EOFError):
        waiting.wait()
    os.kill(waiting.pid, signal.SIGKILL)
    assert report(server)["parent"] != parent


def test_where_no_process_can_be_started_it_is_said_and_the_server_stays():
    server = ForkServer(["engine.fork_targets"], {**os.environ, "NO_PROCESSES": "1"})
    for _ in range(2):
        with pytest.raises(VitariumError, match=r"started: Resource temporarily .* `ulimit -u`"):
            fork(server, "wait")
    assert server._process.poll() is None


def test_a_server_that_cannot_import_is_one_error():
    with pytest.raises(VitariumError, match="no worker process can be started"):
        ForkServer(["no_such_module"], os.environ).fork("engine.fork_targets:wait")


def test_modules_of_the_folder_where_we_are_are_not_pythons(tmp_path, monkeypatch):
    (tmp_path / "queue.py").write_text("raise SystemExit('not the queue')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*filter(None, sys.path), tmp_path / "no text"])
    server = ForkServer(["queue", "engine.fork_targets"], os.environ)
    assert report(server, "a")["arguments"] == ["a"]


def test_a_server_ends_with_the_process_that_it_serves(tmp_path):
    program = "from engine.fork_targets import serve; serve()"
    path = os.pathsep.join(filter(None, sys.path))
    engine = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    forked = int(engine.stdout.readline())
    status = Path(f"/proc/{forked}/stat").read_text()
    server = int(status.rpartition(")")[2].split()[1])
    assert is_running(server)
    engine.kill()
    engine.wait()
    engine.stdout.close()
    wait_for(lambda: not is_running(server))
    os.kill(forked, signal.SIGKILL)


def test_a_server_that_was_started_imports_before_the_first_fork(server, tmp_path):
    tally = tmp_path / "imports"
    server.start()
    wait_for(tally.exists)
    server.start()  # it is there
    report(server)
    assert tally.read_text() == "x"


@pytest.mark.parametrize(
    ("settings", "threads"),
    [
        ((None, None, None), 1),
        (("cpu", 2, None), 3),
        (("auto", None, 2), 2),
        (("cpu", 0, None), None),
        (("cuda", None, None), None),
    ],
)
def test_the_server_of_workers_is_started_where_their_threads_are_known(
    monkeypatch, settings, threads
):
    started = []
    monkeypatch.setattr(_worker_server, "available_cores", lambda: 6)
    monkeypatch.setattr(_worker_server, "_GPUS", ())
    monkeypatch.setattr(
        _worker_server, "worker_server", lambda n: SimpleNamespace(start=lambda: started.append(n))
    )
    _worker_server.start_worker_server(*settings)
    assert started == ([] if threads is None else [threads])


def test_where_there_may_be_a_gpu_torch_is_asked_first(monkeypatch, tmp_path):
    started = []
    monkeypatch.setattr(_worker_server, "_GPUS", (str(tmp_path),))
    monkeypatch.setattr(
        _worker_server, "worker_server", lambda n: SimpleNamespace(start=lambda: started.append(n))
    )
    _worker_server.start_worker_server("auto", None, None)
    assert not started
    _worker_server.start_worker_server("cpu", None, 1)
    assert started == [1]
