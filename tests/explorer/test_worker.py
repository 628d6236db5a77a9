"""Answers are computed once, kept as long as they hold, and dropped when nobody waits."""

import asyncio
import json
from threading import Event, Thread

import pytest
from listing import write_zoo

from vitarium import Zoo
from vitarium.core import files
from vitarium.core.errors import DamagedCache
from vitarium.explorer import index_process
from vitarium.explorer import worker as worker_module
from vitarium.explorer.answer_cache import AnswerCache
from vitarium.explorer.computation import Computation, ComputationFailed, Computed
from vitarium.explorer.worker import Abandoned, Worker
from vitarium.zoo import _index

KEY = ("behavior", "model", "version")


class Recorded:
    """Stands in for the process: says what it was asked, and answers when it is told to."""

    def __init__(self, zoo):
        self.requests, self.is_alive = [], True
        self.may_answer = asyncio.Event()
        self.loop = asyncio.get_event_loop()

    def run(self, name, arguments):
        self.requests.append((name, *arguments))
        asyncio.run_coroutine_threadsafe(self.may_answer.wait(), self.loop).result()
        if not self.is_alive:
            raise ComputationFailed("stopped")
        content = json.dumps({"of": arguments[0]}).encode()
        return Computed(content, is_lasting=arguments[0] != "refused")

    def stop(self):
        self.is_alive = False
        self.loop.call_soon_threadsafe(self.may_answer.set)


async def is_here():
    return False


async def is_gone():
    return True


@pytest.fixture
def computations(monkeypatch):
    """The processes that were started."""
    started = []

    def start(zoo):
        started.append(Recorded(zoo))
        return started[-1]

    monkeypatch.setattr(worker_module, "Computation", start)
    monkeypatch.setattr(worker_module, "_GRACE_SECONDS", 0.05)
    monkeypatch.setattr(worker_module, "_POLL_SECONDS", 0.01)

    async def at_once(function, *arguments):  # a thread has no event loop to ask for
        if getattr(function, "__name__", "") == "run":
            return await asyncio.get_event_loop().run_in_executor(None, function, *arguments)
        return function(*arguments)

    monkeypatch.setattr(worker_module.asyncio, "to_thread", at_once)
    return started


def test_an_answer_is_computed_once(tmp_path, computations):
    async def ask():
        worker = Worker(tmp_path)
        both = [worker.answer("behavior", ["a"], version="1", is_gone=is_here) for _ in range(2)]
        waiting = asyncio.gather(*both)
        await asyncio.sleep(0.05)
        computations[0].may_answer.set()
        answers = await waiting
        later = await Worker(tmp_path).answer("behavior", ["a"], version="1", is_gone=is_here)
        newer = await worker.answer("behavior", ["a"], version="2", is_gone=is_here)
        return [json.loads(answer) for answer in (*answers, later, newer)]

    assert asyncio.run(ask()) == [{"of": "a"}] * 4
    assert computations[0].requests == [("behavior", "a")] * 2
    assert len(computations) == 1


def test_a_refusal_is_not_remembered(tmp_path, computations):
    async def ask():
        worker = Worker(tmp_path)
        worker.start()
        computations[0].may_answer.set()
        for _ in range(2):
            await worker.answer("behavior", ["refused"], version="1", is_gone=is_here)

    asyncio.run(ask())
    assert len(computations[0].requests) == 2


def test_what_nobody_waits_for_is_dropped(tmp_path, computations):
    async def ask():
        worker = Worker(tmp_path)
        first = asyncio.create_task(
            worker.answer("behavior", ["slow"], version="1", is_gone=is_gone)
        )
        second = asyncio.create_task(
            worker.answer("behavior", ["queued"], version="1", is_gone=is_gone)
        )
        for task in (first, second):
            with pytest.raises(Abandoned):
                await task
        last = asyncio.create_task(
            worker.answer("behavior", ["last"], version="1", is_gone=is_here)
        )
        while len(computations) < 2:
            await asyncio.sleep(0.01)
        computations[1].may_answer.set()
        return await last

    assert asyncio.run(ask()) == b'{"of": "last"}'
    assert computations[0].requests == [("behavior", "slow")]
    assert not computations[0].is_alive
    assert computations[1].requests == [("behavior", "last")]


def test_cached_answers_are_whole_or_named(tmp_path):
    cache = AnswerCache(tmp_path)
    assert cache.get(KEY) is None
    cache.put(KEY, b'{"accuracy": 0.5}')
    assert json.loads(cache.get(KEY)) == {"accuracy": 0.5}
    assert cache.get(("behavior", "model", "newer")) is None
    (file,) = (tmp_path / "cache" / "explorer").iterdir()
    file.write_text(file.read_text().replace("0.5", "0.9"))
    with pytest.warns(DamagedCache, match="checksum"):
        assert cache.get(KEY) is None
    assert not file.exists()


def test_a_newer_answer_takes_the_place_of_an_older_one(tmp_path):
    cache = AnswerCache(tmp_path)
    cache.put(KEY, b'{"accuracy": 0.5}')
    newer = (*KEY[:-1], "newer")
    cache.put(newer, b'{"accuracy": 0.7}')
    assert json.loads(cache.get(newer)) == {"accuracy": 0.7}
    assert cache.get(KEY) is None
    assert len(list((tmp_path / "cache" / "explorer").iterdir())) == 1


@pytest.mark.slow
def test_a_process_that_ends_is_said_and_replaced(grown_zoo):
    computation = Computation(grown_zoo.path)
    id = grown_zoo.ids()[0]
    assert json.loads(computation.run("behavior", [id]).content)["images"] > 0
    refused = computation.run("behavior", ["zzz"])
    assert (b"unknown model" in refused.content, refused.is_lasting) == (True, False)
    with pytest.raises(ComputationFailed, match="positional argument"):
        computation.run("behavior", [id, id])
    assert computation.is_alive
    computation.stop()
    with pytest.raises(ComputationFailed, match="ended"):
        computation.run("behavior", [id])
    assert not computation.is_alive


@pytest.mark.slow
def test_many_new_models_are_read_beside_the_server(tmp_path, monkeypatch):
    write_zoo(tmp_path / "zoo", 30)
    monkeypatch.setattr(index_process, "_MANY", 31)
    index_process.update_index(tmp_path / "zoo")
    assert _index.count_changed(tmp_path / "zoo") == 30
    monkeypatch.setattr(index_process, "_MANY", 30)
    index_process.update_index(tmp_path / "zoo")
    assert _index.count_changed(tmp_path / "zoo") == 0
    assert Zoo.open(tmp_path / "zoo").models().shape[0] == 30
    (tmp_path / "zoo" / "index" / "tables.parquet").write_bytes(b"damaged")
    assert _index.count_changed(tmp_path / "zoo") == 30


def test_what_is_computed_when_the_server_ends_is_dropped(tmp_path, computations):
    async def ask():
        worker = Worker(tmp_path)
        answer = asyncio.create_task(
            worker.answer("behavior", ["slow"], version="1", is_gone=is_here)
        )
        while not computations or not computations[0].requests:
            await asyncio.sleep(0.01)
        worker.close()
        with pytest.raises(Abandoned):
            await answer

    asyncio.run(ask())


@pytest.mark.parametrize(
    "value",
    [{}, {"key": 5, "answer": 1}, {"key": [], "answer": 1}, {"key": [*KEY]}, {"key": [KEY]}],
)
def test_an_answer_that_is_none_is_computed_anew(tmp_path, value):
    cache = AnswerCache(tmp_path)
    cache.put(KEY, b"1")
    (file,) = (tmp_path / "cache" / "explorer").iterdir()
    files.write_sealed(file, value)
    with pytest.warns(DamagedCache):
        assert cache.get(KEY) is None


def test_a_damaged_answer_behind_a_link_is_computed_anew_and_stays(tmp_path):
    outside, zoo = tmp_path / "outside", tmp_path / "zoo"
    zoo.mkdir()
    AnswerCache(outside).put(KEY, b"1")
    (file,) = (outside / "cache" / "explorer").iterdir()
    file.write_text("damaged")
    (zoo / "cache").symlink_to(outside / "cache")
    with pytest.warns(DamagedCache):
        assert AnswerCache(zoo).get(KEY) is None
    assert file.read_text() == "damaged"


def test_what_a_reader_may_run_is_not_taken_from_a_zoos_cache(tmp_path, computations):
    key = ("reproduction", "a", "1")
    AnswerCache(tmp_path).put(key, b'{"commands": [["hostile"]]}')

    async def ask():
        worker = Worker(tmp_path)
        worker.start()
        computations[0].may_answer.set()
        return await worker.answer("reproduction", ["a"], version="1", is_gone=is_here)

    assert json.loads(asyncio.run(ask())) == {"of": "a"}


def test_a_folder_goes_once_its_computation_has_ended(tmp_path, computations):
    folder = tmp_path / "download"
    folder.mkdir()

    async def ask():
        worker = Worker(tmp_path)
        with pytest.raises(Abandoned):
            await worker.answer("download", ["a"], version="1", is_gone=is_gone, folder=folder)
        assert folder.exists()  # it is still written into
        while computations[0].is_alive or folder.exists():
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(ask(), 60))


def test_one_process_is_started_however_many_ask_and_none_at_the_end(tmp_path, monkeypatch):
    started = []

    class Slow(Recorded):
        def __init__(self, zoo):
            started.append(self)
            Event().wait(0.05)  # others come meanwhile
            self.is_alive = True

        def stop(self):
            self.is_alive = False

    monkeypatch.setattr(worker_module, "Computation", Slow)
    worker = Worker(tmp_path)
    threads = [Thread(target=worker.start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(started) == 1
    worker.close()
    worker.start()
    assert len(started) == 1
    assert not started[0].is_alive
