"""Growing on a real Ray cluster of two workers: the bits are those of the local engine."""

import sys
import time
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from forked_command import ForkedCommand
from vitarium import Blueprint, Zoo, grow, plan
from vitarium.core.errors import InvalidInput, VitariumError
from vitarium.engine.events import EpochEnded, Halved, Retried, Started
from vitarium.engine.pools import _ray_connection as ray_connection
from vitarium.engine.pools import ray as ray_cluster

pytestmark = pytest.mark.slow
NOWHERE = "127.0.0.1:1"


@pytest.fixture(scope="module", autouse=True)
def _workers_like_other_processes():
    """Ray lets its workers wait for all other processes: at niceness 15 they get no core of a busy
    machine for minutes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")
        yield


@pytest.fixture(scope="module")
def cluster():
    """A cluster that this process has started, and is on; its address."""
    ray = pytest.importorskip("ray")
    with ray_connection.connected(None, 2):
        yield ray.get_runtime_context().gcs_address


@pytest.fixture
def without_shared_folder(monkeypatch):
    """No worker finds what the engine has written for it into the zoo; what they send then."""
    write, unload, sent = ray_cluster._write_token, ray_cluster.unload, []

    def listen(file, zoo):
        sent.append(file.path)
        unload(file, zoo)

    monkeypatch.setattr(ray_cluster, "_write_token", lambda zoo: (write(zoo)[0], b"another"))
    monkeypatch.setattr(ray_cluster, "unload", listen)
    return sent


def checkpoints(zoo: Zoo) -> dict[str, bytes]:
    files = sorted((zoo.path / "models").glob("*/checkpoints/*"))
    return {str(file.relative_to(zoo.path)): file.read_bytes() for file in files}


def local(values, path):
    return grow(
        Blueprint.read(values), path, workers=0, precision="fp32", stacked=1, progress=False
    ).zoo


def with_ray(values, path, **options):
    plain = {"precision": "fp32", "compiled": False, "stacked": 1}
    options = {"engine": "ray", "workers": 2, **plain, **options}
    return grow(Blueprint.read(values), path, progress=False, **options)


def whole(zoo: Zoo) -> bool:
    """Whether it looks as if nothing had ever been shipped, retried or shared."""
    names = {file.name for file in zoo.path.rglob("*") if file.is_file()}
    return not [
        name
        for name in names
        if name == ".engine" or name.startswith("progress-") or name.endswith(".tmp")
    ]


@pytest.mark.evidence  # over a minute on two busy cores; test_grow.py has it without Ray
@pytest.mark.parametrize("shared", [True, False])
def test_a_model_whose_worker_is_lost_goes_on_with_the_same_bits(
    cluster, faulty, tmp_path, request, shared
):
    """They are those of the local engine. Where workers have no folder of the zoo, all is shipped."""
    shipped = None if shared else request.getfixturevalue("without_shared_folder")
    values = faulty(fault="killed", at=4, children=True)
    (faulty_one,) = (
        spec.id
        for spec in plan(Blueprint.read(values)).models
        if spec.recipe.objective.name == "faulty" and not spec.parent
    )
    (tmp_path / "tally").write_text("x")  # so that nothing goes wrong at first
    undisturbed = local(values, tmp_path / "local")
    (tmp_path / "tally").unlink()
    causes, there, epochs, started = [], [], [], []

    def listen(event):
        if isinstance(event, Started):
            started.append(event.model)
        elif isinstance(event, Retried):
            causes.append(event.cause)
            there.extend(Zoo.open(tmp_path / "ray").folder(event.model).epochs())
            epochs.clear()
        elif isinstance(event, EpochEnded) and event.model == faulty_one:
            epochs.append(event.epoch)

    growth = with_ray(values, tmp_path / "ray", listener=listen, workers=2 if shared else 1)
    assert growth.complete
    assert len(growth.grown) == 9
    assert sorted(started) == sorted([*growth.grown, faulty_one])
    (cause,) = causes
    assert "its Ray worker was lost" in cause
    assert epochs == list(range(len(there), 3))
    assert checkpoints(growth.zoo) == checkpoints(undisturbed)
    assert growth.zoo.models()["test_accuracy"].equals(undisturbed.models()["test_accuracy"])
    for id in growth.grown:
        assert growth.zoo.folder(id).about() == undisturbed.folder(id).about()
    assert whole(growth.zoo)
    if not shared:
        epochs_shipped = Counter(path for path in shipped if "epoch-" in path)
        assert len(epochs_shipped) == 3 * 3 + 6 * 2
        # one may have been on its way when the worker was lost, and comes again
        again = [path for path, count in epochs_shipped.items() if count > 1]
        assert len(again) <= 1
        assert all(faulty_one in path for path in again)


@pytest.mark.evidence  # test_grow.py has it without Ray
def test_a_lack_of_memory_halves_the_models_at_a_time(cluster, faulty, tmp_path):
    events = []
    growth = with_ray(faulty(fault="memory"), tmp_path / "ray", listener=events.append)
    assert growth.complete
    assert [event.models for event in events if isinstance(event, Halved)] == [1]


def test_a_node_too_small_is_one_error(cluster, tiny, tmp_path):
    with pytest.raises(VitariumError, match="no node of the cluster has 64 CPUs and 0 GPUs"):
        with_ray(tiny, tmp_path / "zoo", cpus_per_model=64)
    assert not (tmp_path / "zoo").exists()


@pytest.fixture
def command(tiny, tmp_path, write_blueprint, monkeypatch):
    """Grow the tiny blueprint's parents into `tmp_path / "zoo"`, in a process of its own."""
    del tiny["stages"]["finetune"]
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    # what is fastest here depends on what else runs, and does not give the same bits
    plain = ["--engine=ray", "--precision=fp32", "--no-compiled", "--stacked=1"]
    grow = ["grow", str(write_blueprint(tiny)), "--zoo", str(tmp_path / "zoo"), *plain]
    return lambda *options: ForkedCommand(*grow, *options, messages=tmp_path / "messages")


@pytest.mark.parametrize("joins", [True, pytest.param(False, marks=pytest.mark.evidence)])
def test_the_command_line_joins_a_cluster_or_starts_one(
    cluster, tmp_path, grown_zoo, command, joins
):
    process = command("--workers", "1", *(["--address", cluster] if joins else []))
    assert process.wait() == 0, process.messages
    assert "[2/2]" in process.messages
    # a line per model, and the sum: Ray is silent
    ours = ("growing tiny", "[1/2]", "[2/2]", "0 of 2", "1 of 2", "2 of 2", "2 models grown")
    assert all(line.startswith(ours) for line in process.messages.splitlines())
    parents = checkpoints(Zoo.open(tmp_path / "zoo"))
    assert len(parents) == 2 * 3
    assert parents.items() <= checkpoints(grown_zoo).items()


def test_an_unreachable_cluster_is_one_line(tmp_path, command):
    process = command("--address", NOWHERE)
    assert process.wait() == 1
    assert len(process.messages.strip().splitlines()) == 1
    assert process.messages.startswith(f"error: no Ray cluster at {NOWHERE}")
    assert not (tmp_path / "zoo").exists()


@pytest.fixture
def nowhere_yet(monkeypatch):
    """As in a process that is on no cluster."""
    monkeypatch.setattr(pytest.importorskip("ray"), "is_initialized", lambda: False)


@contextmanager
def web_server():
    class Silent(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Silent) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_an_unreachable_cluster_is_noticed_within_seconds(nowhere_yet, tiny, tmp_path):
    started = time.monotonic()
    with pytest.raises(VitariumError, match=f"no Ray cluster at {NOWHERE}"):
        with_ray(tiny, tmp_path / "zoo", address=NOWHERE)
    assert time.monotonic() - started < 20


def test_where_something_else_answers_there_is_no_cluster(nowhere_yet, tiny, tmp_path):
    with web_server() as address, pytest.raises(VitariumError, match="something else answers"):
        with_ray(tiny, tmp_path / "zoo", address=address)
    assert not (tmp_path / "zoo").exists()


def test_no_cluster_on_this_machine_is_one_error(nowhere_yet, monkeypatch, tiny, tmp_path):
    def init(**_):
        raise ConnectionError("Could not find\nany running Ray instance.")

    monkeypatch.setattr(ray_connection.the_ray(), "init", init)
    with pytest.raises(VitariumError, match="no Ray cluster at auto: Could not find any running"):
        with_ray(tiny, tmp_path / "zoo", address="auto")


def test_without_ray_it_is_said_how_to_get_it(monkeypatch, tiny, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InvalidInput, match=r"needs: pip install 'vitarium\[ray\]'"):
        with_ray(tiny, tmp_path / "zoo")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"address": "somewhere"}, "is not an address"),
        ({"address": "ray://head:10001"}, "is not an address"),
        ({"device": "cuda:1"}, "choose auto, cpu or cuda"),
        ({"device": "cpu", "gpus_per_model": 0.5}, "0.5 GPUs per model contradict"),
        ({"device": "cuda", "gpus_per_model": 0}, "0 GPUs per model contradict"),
        ({"gpus_per_model": 2}, "uses one GPU"),
        ({"cpus_per_model": 0}, "0 CPUs per model"),
        ({"workers": 0}, "0 workers"),
    ],
)
def test_what_cannot_be_is_refused(nowhere_yet, tiny, tmp_path, options, message):
    with pytest.raises(InvalidInput, match=message):
        grow(Blueprint.read(tiny), tmp_path / "zoo", engine="ray", progress=False, **options)
    assert not (tmp_path / "zoo").exists()
