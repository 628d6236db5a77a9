"""The fork server of workers. Imports no torch, so that it can be started before all else."""

import os
import sys
from functools import cache
from pathlib import Path

from vitarium.core.cores import available_cores
from vitarium.engine.pools._fork_server import ForkServer

WORKER = "vitarium.engine.worker"
_GPUS = ("/dev/nvidia0", "/dev/kfd")


def start_worker_server(device: str | None, workers: int | None, threads: int | None) -> None:
    """Let the fork server import the libraries while this process reads its plan.

    On machines with a CPU alone, where torch need not be asked how many threads a worker gets. If
    the blueprint sets other threads, another server is started.
    """
    if sys.platform != "linux" or device not in (None, "auto", "cpu") or workers == 0:
        return
    if device != "cpu" and any(Path(gpu).exists() for gpu in _GPUS):
        return
    cores = available_cores()
    count = workers or max(1, cores // (threads or 1))
    worker_server(threads or max(1, cores // count)).start()


def worker_server(threads: int) -> ForkServer:
    """This process's server of workers with that many threads."""
    return _server(threads, os.getpid())


def worker_environment(threads: int) -> dict[str, str]:
    """Of a process that will train with that many threads."""
    return {**os.environ, "OMP_NUM_THREADS": str(threads)}


@cache
def _server(threads: int, process: int) -> ForkServer:
    return ForkServer([WORKER], worker_environment(threads))
