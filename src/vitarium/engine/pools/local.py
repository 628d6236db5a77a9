"""The local engine: worker processes on this machine."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from pathlib import Path

from vitarium.blueprint import ModelSpec
from vitarium.engine.events import Ended, Event, Halved, Listener, Retried, Started
from vitarium.engine.queue import Queue
from vitarium.engine.scheduler import OUT_OF_MEMORY, Stacks, Worker, schedule
from vitarium.engine.tuning.auto_tuner import AutoTuner
from vitarium.engine.tuning.calibration import Calibration, TrainMode
from vitarium.engine.tuning.machine import Machine
from vitarium.engine.worker import (
    Broken,
    Died,
    Job,
    Message,
    OutOfMemory,
    Unwritable,
    is_out_of_memory,
    run_job,
)
from vitarium.training import TrainOptions
from vitarium.zoo import Zoo


class LocalEngine:
    """Worker processes on this machine; with no workers, this process itself.

    Args:
        workers: None: as many as there are cores, or as the GPUs hold.
    """

    def __init__(self, device: str, workers: int | None) -> None:
        self.machine = Machine.find(device, workers)
        self._shares_gpus = workers is None

    @contextmanager
    def measuring(self, notify: Callable[[str], None]) -> Iterator[Calibration]:
        yield Calibration(self.machine.devices[0], self.machine.threads, notify)

    def run(
        self, queue: Queue, zoo: Zoo, options: TrainOptions, tuner: AutoTuner, emit: Listener
    ) -> None:
        """Train all models of the queue. However this ends, no worker is left."""
        if not self.machine.workers:
            _run_here(queue, zoo, options, tuner, emit)
            return
        machine = tuner.shared_gpus(queue.waiting()) if self._shares_gpus else self.machine
        size = min(machine.workers, len(queue))
        if size:
            with LocalPool(zoo, options, size, machine.threads, machine.devices) as pool:
                schedule(queue, pool, zoo, emit, tuner.mode)


def _run_here(
    queue: Queue, zoo: Zoo, options: TrainOptions, tuner: AutoTuner, emit: Listener
) -> None:
    """Train stack after stack in this process, with its threads."""
    stacks = Stacks(queue, tuner.mode)
    while True:
        specs, mode = stacks.next()
        if not specs:
            return
        specs_by_id = {spec.id: spec for spec in specs}
        for id in specs_by_id:
            emit(Started(id))

        def listen(event: Event, left: dict[str, ModelSpec] = specs_by_id) -> None:
            if isinstance(event, Ended):
                spec = left.pop(event.model)
                if event.status == "finished":
                    queue.finished(spec)
            emit(event)

        job = Job(str(zoo.path), tuple(s.factors() for s in specs), mode.options(options))
        try:
            run_job(job, listen)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            _smaller(specs_by_id, len(specs), stacks, error, emit)


def _smaller(
    left: dict[str, ModelSpec], size: int, stacks: Stacks, error: Exception, emit: Listener
) -> None:
    """What is left of a stack that took too much memory is tried in stacks half as large."""
    if size == 1:
        for id in left:
            emit(Ended(id, "failed", OUT_OF_MEMORY.format(cause=error)))
        return
    stacks.max_models = size // 2
    for spec in reversed(left.values()):
        stacks.queue.put_back(spec)
        emit(Retried(spec.id, f"out of memory ({error})"))
    emit(Halved(stacks.max_models, str(error)))


_PROGRAM = "from vitarium.engine.worker import main; main()"


class _Process(Worker):
    """A process and our end of the socket to it."""

    def __init__(self, number: int, threads: int) -> None:
        super().__init__()
        self.number = number
        self.oom_kills = 0
        engine_end, worker_end = socket.socketpair()
        with worker_end:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    _PROGRAM,
                    str(worker_end.fileno()),
                    str(threads),
                ],
                pass_fds=[worker_end.fileno()],
                stdin=subprocess.DEVNULL,
                env={
                    **os.environ,
                    "OMP_NUM_THREADS": str(threads),
                    "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
                },
                start_new_session=True,  # Ctrl-C is for the engine alone, which stops its workers
            )
        self.connection = Connection(engine_end.detach())

    def send(self, job: Job) -> None:
        self.oom_kills = _oom_kills()
        with suppress(OSError):  # it died while idle; its end is read as its next message
            self.connection.send(job)

    def receive(self) -> Message:
        try:
            message: Message = self.connection.recv()
        except (EOFError, OSError):
            return self._cause_of_death()
        return message

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self.connection.close()

    def _cause_of_death(self) -> Died | OutOfMemory:
        code = self.process.wait()
        if code >= 0:
            return Died(f"its process ended with status {code}")
        if code == -signal.SIGKILL and _oom_kills() > self.oom_kills:
            return OutOfMemory("the machine ran out of memory and killed its process")
        name = signal.Signals(-code).name
        hint = " (often the machine ran out of memory)" if name == "SIGKILL" else ""
        return Died(f"its process was killed by {name}{hint}")


class LocalPool:
    """As many processes as wanted, started when there is work; the dead are replaced.

    They take the devices in turn.
    """

    def __init__(
        self, zoo: Zoo, options: TrainOptions, size: int, threads: int, devices: Sequence[str]
    ) -> None:
        self.size = size
        self._zoo, self._options, self._threads = zoo, options, threads
        self._devices = devices
        self._workers: dict[int, _Process] = {}

    def __enter__(self) -> "LocalPool":
        return self

    def __exit__(self, *fault: object) -> None:
        for worker in self._workers.values():
            worker.stop()

    def idle(self) -> Iterable[_Process]:
        """Workers without a model; missing ones are started one by one, as they are asked for."""
        self._stop_surplus()
        for number in range(self.size):
            if sum(bool(worker.specs) for worker in self._workers.values()) >= self.size:
                return
            if number not in self._workers:
                self._workers[number] = _Process(number, self._threads)
            if not self._workers[number].specs:
                yield self._workers[number]

    def start(self, worker: _Process, specs: Sequence[ModelSpec], mode: TrainMode) -> None:
        device = self._devices[worker.number % len(self._devices)]
        factors = tuple(spec.factors() for spec in specs)
        options = replace(mode.options(self._options), device=device)
        worker.send(Job(str(self._zoo.path), factors, options))

    def busy(self) -> bool:
        return any(worker.specs for worker in self._workers.values())

    def messages(self) -> Iterable[tuple[_Process, Message]]:
        by_connection = {worker.connection: worker for worker in self._workers.values()}
        for connection in wait(list(by_connection)):
            worker = by_connection[connection]  # type: ignore[index]
            message = worker.receive()
            if isinstance(message, Broken | Died | OutOfMemory | Unwritable):
                del self._workers[worker.number]
                worker.stop()
            yield worker, message

    def _stop_surplus(self) -> None:
        """Even an idle process holds memory."""
        for number, worker in list(self._workers.items()):
            if number >= self.size and not worker.specs:
                del self._workers[number]
                worker.stop()


def _oom_kills() -> int:
    """How many processes Linux has killed since it started, for want of memory."""
    try:
        lines = Path("/proc/vmstat").read_text("ascii").splitlines()
    except OSError:
        return 0
    counts = dict(line.split() for line in lines)
    return int(counts.get("oom_kill", 0))
