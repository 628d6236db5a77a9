"""The local engine: worker processes on this machine."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait

from vitarium.blueprint import ModelSpec
from vitarium.engine.events import Ended, Event, Listener, Retried, Started
from vitarium.engine.queue import Queue
from vitarium.engine.worker import Broken, Job, run_job
from vitarium.errors import VitariumError
from vitarium.store import Zoo
from vitarium.training import TrainOptions

TRIES = 2
"""How often a model is started before a dying worker counts as its own fault."""


def run_here(queue: Queue, zoo: Zoo, options: TrainOptions, tell: Listener) -> None:
    """Train model after model in this process, with its threads."""
    while spec := queue.next():
        tell(Started(spec.id))
        try:
            status = run_job(Job(str(zoo.path), spec.factors(), options), tell)
        except VitariumError as error:
            tell(Ended(spec.id, "failed", str(error)))
        else:
            if status == "finished":
                queue.finished(spec)


def run_workers(
    queue: Queue,
    zoo: Zoo,
    options: TrainOptions,
    tell: Listener,
    *,
    workers: int,
    threads: int,
    devices: Iterable[str],
) -> None:
    """Train `workers` models at a time, each in a process with `threads` threads.

    A worker that dies is reported with its cause; its model is tried once more, from its last
    epoch. Workers take the devices in turn. However this ends, no worker is left.
    """
    places = list(devices)
    with _Pool(workers, threads) as pool:
        tries: dict[str, int] = {}
        while True:
            for worker in pool.idle():
                spec = queue.next()
                if spec is None:
                    break
                tries[spec.id] = tries.get(spec.id, 0) + 1
                tell(Started(spec.id))
                device = places[worker.number % len(places)]
                worker.start(
                    spec, Job(str(zoo.path), spec.factors(), replace(options, device=device))
                )
            if not pool.busy():
                return
            for worker, message in pool.messages():
                _handle(message, worker, queue, tries, tell)


def _handle(
    message: "Event | Broken | _Died",
    worker: "_Worker",
    queue: Queue,
    tries: dict[str, int],
    tell: Listener,
) -> None:
    spec = worker.spec
    if spec is None:
        return
    match message:
        case Ended():
            worker.spec = None
            if message.status == "finished":
                queue.finished(spec)
            tell(message)
        case Broken() | _Died():
            worker.spec = None
            if tries[spec.id] < TRIES:
                queue.put_back(spec)
                tell(Retried(spec.id, message.cause))
            else:
                tell(Ended(spec.id, "failed", message.cause))
        case _:
            tell(message)


_PROGRAM = "from vitarium.engine.worker import main; main()"


@dataclass(frozen=True)
class _Died:
    cause: str


class _Worker:
    """A process and our end of the socket to it."""

    def __init__(self, number: int, threads: int) -> None:
        self.number = number
        self.spec: ModelSpec | None = None
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    _PROGRAM,
                    str(theirs.fileno()),
                    str(threads),
                ],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={
                    **os.environ,
                    "OMP_NUM_THREADS": str(threads),
                    "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
                },
                start_new_session=True,  # Ctrl-C is for the engine alone, which stops its workers
            )
        self.connection = Connection(ours.detach())

    def start(self, spec: ModelSpec, job: Job) -> None:
        self.spec = spec
        with suppress(OSError):  # it died while idle; its end is read as its next message
            self.connection.send(job)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self.connection.close()


class _Pool:
    """As many workers as wanted, started when there is work; the dead are replaced."""

    def __init__(self, size: int, threads: int) -> None:
        self._size, self._threads = size, threads
        self._workers: dict[int, _Worker] = {}

    def __enter__(self) -> "_Pool":
        return self

    def __exit__(self, *fault: object) -> None:
        for worker in self._workers.values():
            worker.stop()

    def idle(self) -> Iterable[_Worker]:
        """Workers without a model; missing ones are started one by one, as they are asked for."""
        for number in range(self._size):
            if number not in self._workers:
                self._workers[number] = _Worker(number, self._threads)
            if self._workers[number].spec is None:
                yield self._workers[number]

    def busy(self) -> bool:
        return any(worker.spec for worker in self._workers.values())

    def messages(self) -> Iterable[tuple[_Worker, "Event | Broken | _Died"]]:
        """Wait for something to happen, and give what has been sent."""
        by_connection = {worker.connection: worker for worker in self._workers.values()}
        for connection in wait(list(by_connection)):
            worker = by_connection[connection]  # type: ignore[index]
            try:
                message = worker.connection.recv()
            except (EOFError, OSError):
                message = _Died(_cause_of_death(worker.process))
            if isinstance(message, Broken | _Died):
                del self._workers[worker.number]
                worker.stop()
            yield worker, message


def _cause_of_death(process: "subprocess.Popen[bytes]") -> str:
    code = process.wait()
    if code >= 0:
        return f"its process ended with status {code}"
    name = signal.Signals(-code).name
    hint = " (often the machine ran out of memory)" if name == "SIGKILL" else ""
    return f"its process was killed by {name}{hint}"
