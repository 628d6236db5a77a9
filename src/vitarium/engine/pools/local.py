"""The local engine: worker processes on this machine, or this process itself."""

import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from vitarium.blueprint import ModelSpec
from vitarium.engine.pools._fork_server import ForkedProcess, run_python
from vitarium.engine.pools._worker_server import WORKER, worker_environment, worker_server
from vitarium.engine.scheduler import Pool, Queue, Worker
from vitarium.engine.tuning.auto_tuner import AutoTuner
from vitarium.engine.tuning.calibration import Calibration, TrainMode
from vitarium.engine.tuning.machine import Machine
from vitarium.engine.worker import Fault, Job, Message, is_out_of_memory, run_job
from vitarium.training import TrainOptions
from vitarium.zoo import Zoo


class LocalEngine:
    """With `workers` None there are as many as cores, or as the GPUs hold; 0: this process."""

    def __init__(self, device: str, workers: int | None, threads: int | None = None) -> None:
        self.machine = Machine.find(device, workers, threads)
        self._shares_gpus = workers is None

    def calibration(self, notify: Callable[[str], None]) -> Calibration:
        return Calibration(self.machine.devices[0], self.machine.threads, notify)

    def pool(self, queue: Queue, zoo: Zoo, options: TrainOptions, tuner: AutoTuner) -> Pool[Any]:
        if not self.machine.workers:
            return InlinePool(zoo, options, 1, self.machine.threads)
        machine = tuner.shared_gpus(queue.waiting()) if self._shares_gpus else self.machine
        size = min(machine.workers, len(queue))
        return LocalPool(zoo, options, size, machine.threads, machine.devices)


class InlinePool(Pool[Worker]):
    """This process: it trains a stack as its messages are waited for."""

    max_tries = 1

    def __init__(self, zoo: Zoo, options: TrainOptions, size: int, threads: int) -> None:
        super().__init__(zoo, options, size)
        self.threads = threads

    def begin(self, number: int) -> Worker:
        return Worker(number)

    def start(self, worker: Worker, specs: Sequence[ModelSpec], mode: TrainMode) -> None:
        factors = tuple(spec.factors() for spec in specs)
        self.job = Job(str(self.zoo.path), factors, mode.options(self.options))

    def receive(self, handle: Callable[[Worker, Message], None]) -> None:
        (worker,) = self.workers.values()
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            run_job(self.job, lambda event: handle(worker, event))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            handle(worker, Fault("out-of-memory", str(error)))
        finally:
            torch.set_num_threads(before)


class _Process(Worker):
    """A process and our end of the socket to it."""

    def __init__(self, number: int, threads: int) -> None:
        super().__init__(number)
        self.oom_kills = 0
        engine_end, worker_end = socket.socketpair()
        with worker_end:
            self.process = _start_worker(worker_end.fileno(), threads)
        self.connection = Connection(engine_end.detach())

    def send(self, job: Job) -> None:
        self.oom_kills = _oom_kills()
        with suppress(OSError):  # it died while idle; its end is read as its next message
            self.connection.send(job)

    def receive(self) -> Message:
        with suppress(EOFError, OSError):
            return self.connection.recv()
        try:
            code = self.process.wait()
        except EOFError:
            return Fault("died", "it ended after the fork server of all workers was killed")
        if code >= 0:
            return Fault("died", f"its process ended with status {code}")
        if code == -signal.SIGKILL and _oom_kills() > self.oom_kills:
            return Fault("out-of-memory", "the machine ran out of memory and killed its process")
        name = signal.Signals(-code).name
        hint = " (often the machine ran out of memory)" if name == "SIGKILL" else ""
        return Fault("died", f"its process was killed by {name}{hint}")

    def stop(self) -> None:
        with suppress(EOFError, OSError):  # its fork server was killed
            self.process.kill()
            self.process.wait()
        self.connection.close()


class LocalPool(Pool[_Process]):
    """Processes, started when there is work; the dead are replaced. They take devices in turn."""

    def __init__(
        self, zoo: Zoo, options: TrainOptions, size: int, threads: int, devices: Sequence[str]
    ) -> None:
        super().__init__(zoo, options, size)
        self.threads, self.devices = threads, devices

    def begin(self, number: int) -> _Process:
        return _Process(number, self.threads)

    def start(self, worker: _Process, specs: Sequence[ModelSpec], mode: TrainMode) -> None:
        device = self.devices[worker.number % len(self.devices)]
        options = replace(mode.options(self.options), device=device)
        worker.send(Job(str(self.zoo.path), tuple(spec.factors() for spec in specs), options))

    def receive(self, handle: Callable[[_Process, Message], None]) -> None:
        by_connection: dict[Any, _Process] = {w.connection: w for w in self.workers.values()}
        for connection in wait(list(by_connection)):
            worker = by_connection[connection]
            message = worker.receive()
            if isinstance(message, Fault):
                self.remove(worker)
            handle(worker, message)


def _start_worker(handle: int, threads: int) -> "ForkedProcess | subprocess.Popen[bytes]":
    """A process that runs `worker.main` on its end of a socket, with that many threads."""
    if sys.platform == "linux":
        return worker_server(threads).fork(f"{WORKER}:main", [str(threads)], files=[handle])
    program, arguments = f"from {WORKER} import main; main()", [str(threads), str(handle)]
    return run_python(program, arguments, handle, worker_environment(threads))


def _oom_kills() -> int:
    """How many processes Linux has killed since it started, for want of memory."""
    try:
        lines = Path("/proc/vmstat").read_text("ascii").splitlines()
    except OSError:
        return 0
    return int(dict(line.split() for line in lines).get("oom_kill", 0))
