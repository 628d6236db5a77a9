"""Which models run when, without running any: the workers do as the test says."""

import pytest

from vitarium import Blueprint, Zoo, plan
from vitarium.core.errors import CorruptFile, DiskFull, WriteFault
from vitarium.engine.events import Ended, Halved, Retried, Started
from vitarium.engine.scheduler import Pool, Queue, Scheduler, Worker
from vitarium.engine.tuning.calibration import TrainMode
from vitarium.engine.worker import Fault, attempt


class ScriptedPool(Pool):
    """`fate(model, how_often_started, at_a_time)` is the message that ends each run of a model."""

    def __init__(self, size, fate):
        super().__init__(None, None, size)
        self.fate, self.starts, self.most = fate, {}, []

    def begin(self, number):
        return Worker(number)

    def start(self, worker, specs, mode):
        for spec in specs:
            self.starts[spec.id] = self.starts.get(spec.id, 0) + 1

    def receive(self, handle):
        running = [worker for worker in self.workers.values() if worker.specs]
        self.workers = {}
        self.most.append(len(running))
        for worker in running:
            for model in list(worker.specs):
                message = self.fate(model, self.starts[model], self.size)
                handle(worker, message)
                if not isinstance(message, Ended):
                    break


@pytest.fixture
def planned(tiny):
    tiny["stages"]["pretrain"]["grid"] = {"seed": [1, 2, 3, 4]}
    return plan(Blueprint.read(tiny))


@pytest.fixture
def run(planned, tmp_path):
    def run(size, fate):
        pool, told = ScriptedPool(size, fate), []
        queue = Queue(planned, [])
        Scheduler(queue, pool, Zoo.create(tmp_path / "zoo"), told.append).run()
        return pool, told

    return run


def finished(model, *_):
    return Ended(model, "finished")


def kinds(told, kind):
    return [event for event in told if isinstance(event, kind)]


def test_parents_come_before_their_children(planned, run):
    _, told = run(3, finished)
    order = [event.model for event in kinds(told, Ended)]
    assert sorted(order) == sorted(model.id for model in planned.models)
    for model in planned.of_stage("finetune"):
        assert order.index(model.parent) < order.index(model.id)


def test_a_model_is_tried_twice(planned, run):
    unlucky = planned.models[1].id

    def fate(model, starts, size):
        return Fault("died", "lightning") if model == unlucky else Ended(model, "finished")

    pool, told = run(2, fate)
    assert pool.starts[unlucky] == 2
    assert [(event.model, event.cause) for event in kinds(told, Retried)] == [
        (unlucky, "lightning")
    ]
    (failed,) = [event for event in kinds(told, Ended) if event.status == "failed"]
    assert (failed.model, failed.message) == (unlucky, "lightning")


def test_a_trace_is_kept_in_the_zoo(planned, run, tmp_path):
    def fate(model, starts, size):
        return (
            Fault("broken", "ValueError: no", "Traceback: …")
            if starts == 1
            else Ended(model, "finished")
        )

    _, told = run(2, fate)
    for event in kinds(told, Retried):
        file = tmp_path / "zoo" / "failures" / f"{event.model}.txt"
        assert event.cause == f"ValueError: no (trace in {file})"
        assert file.read_text() == "Traceback: …"


def test_several_that_run_out_of_memory_at_once_halve_only_once(run):
    def fate(model, starts, size):
        return (
            Fault("out-of-memory", "full") if size == 4 or starts == 1 else Ended(model, "finished")
        )

    pool, told = run(4, fate)
    assert [event.models for event in kinds(told, Halved)] == [2, 1]
    assert pool.most[:2] == [4, 2]


def test_stacks_are_halved_before_workers_are(planned, tmp_path):
    def fate(model, starts, size):
        return Fault("out-of-memory", "full") if starts < 3 else Ended(model, "finished")

    pool, events = ScriptedPool(2, fate), []
    args = (Queue(planned, []), pool, Zoo.create(tmp_path / "zoo"), events.append)
    Scheduler(*args, lambda spec: TrainMode(stacked=4)).run()
    # of 2 workers: stacks of 2, then of 1; the children, in stacks of 1, halve the workers
    assert [event.models for event in kinds(events, Halved)] == [2 * 2, 2 * 1, 1]
    assert len([event for event in kinds(events, Ended) if event.status == "finished"]) > 0


def test_memory_halves_down_to_one_and_then_the_model_fails(planned, run):
    greedy = planned.models[0].id

    def fate(model, starts, size):
        return Fault("out-of-memory", "full") if model == greedy else Ended(model, "finished")

    pool, told = run(4, fate)
    assert [event.models for event in kinds(told, Halved)] == [2, 1]
    assert pool.starts[greedy] == 4  # among 4, among 2, and twice alone
    (failed,) = [event for event in kinds(told, Ended) if event.status == "failed"]
    assert failed.model == greedy
    assert "out of memory with one model at a time (full)" in failed.message


def test_a_model_that_cannot_be_handed_out_fails_alone(planned, run, monkeypatch, tmp_path):
    lost = planned.models[0].id

    def start(self, worker, specs, mode):
        if specs[0].id == lost:
            raise CorruptFile(tmp_path, "moths")
        self.starts[specs[0].id] = 1

    monkeypatch.setattr(ScriptedPool, "start", start)
    _, told = run(1, finished)
    (failed,) = [event for event in kinds(told, Ended) if event.status == "failed"]
    assert failed.model == lost
    assert "moths" in failed.message
    assert len(kinds(told, Ended)) == len(planned) - 2
    assert len(kinds(told, Started)) == len(planned) - 2


def test_a_zoo_that_cannot_be_written_any_more_stops_all(planned, run):
    full = planned.models[1].id
    told = []

    def fate(model, starts, size):
        told.append(model)
        return (
            Fault("unwritable", "no space left for x")
            if model == full
            else Ended(model, "finished")
        )

    with pytest.raises(WriteFault, match="no space left for x"):
        run(1, fate)
    assert told[-1] == full
    assert len(told) < len(planned)


def test_a_worker_says_that_nothing_can_be_written(tmp_path):
    messages = []

    def work():
        raise DiskFull(tmp_path)

    assert not attempt(work, messages.append)
    assert messages == [Fault("unwritable", str(DiskFull(tmp_path)))]
