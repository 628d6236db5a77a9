"""A worker: a process of its own that trains one model after another.

Its arguments are one end of a socket pair, through which jobs come in and events go out, and its
number of threads. When the other end is gone, so is the worker: an engine that
was killed leaves nothing running behind.
"""

import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from vitarium.blueprint import ModelSpec
from vitarium.engine.events import Ended, EpochEnded, Event, Listener, Stepped
from vitarium.errors import VitariumError
from vitarium.store import Zoo, files
from vitarium.training import EpochDone, Step, TrainOptions, train

STEP_EVENTS_PER_SECOND = 5


@dataclass(frozen=True)
class Job:
    """One model to train."""

    zoo: str
    spec: Mapping[str, Any]
    """As ModelSpec.factors gives it: plain values, so nothing else is unpickled."""
    options: TrainOptions


@dataclass(frozen=True)
class Broken:
    """Something failed that may have left the process in a bad state; it ends now."""

    model: str
    cause: str


def run_job(job: Job, tell: Listener) -> str:
    """Train the job's model in this process, and tell how it goes.

    Returns "finished" or "diverged". Raises what training raises.
    """
    zoo, spec = Zoo.open(job.zoo), ModelSpec.restore(job.spec)
    parent = zoo.state_dict(spec.parent, spec.parent_epoch or 0) if spec.parent else None
    last_told = 0.0

    def report(event: Step | EpochDone) -> None:
        nonlocal last_told
        if isinstance(event, EpochDone):
            tell(EpochEnded(spec.id, event.epoch, event.metrics))
        elif time.monotonic() - last_told > 1 / STEP_EVENTS_PER_SECOND:
            last_told = time.monotonic()
            tell(Stepped(spec.id, event.epoch, event.step, event.steps))

    folder = zoo.folder(spec.id)
    status = train(spec, folder, parent=parent, options=job.options, report=report)
    message = (folder.result() or {}).get("message", "")
    tell(Ended(spec.id, status, message))
    return status


def main() -> None:
    """What a worker's process runs, until the engine is gone."""
    import torch

    connection = Connection(int(sys.argv[1]))
    torch.set_num_threads(int(sys.argv[2]))
    jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, jobs), daemon=True).start()
    while True:
        job = jobs.get()
        try:
            run_job(job, partial(_send, connection))
        except VitariumError as error:  # the model's own fault, not the process's
            _send(connection, Ended(job.spec["id"], "failed", str(error)))
        except Exception as error:
            trace = Path(job.zoo) / "failures" / f"{job.spec['id']}.txt"
            files.write(trace, traceback.format_exc().encode())
            cause = f"{type(error).__name__}: {error} (trace in {trace})"
            _send(connection, Broken(job.spec["id"], cause))
            sys.exit(1)


def _listen(connection: Connection, jobs: "queue.SimpleQueue[Job]") -> None:
    try:
        while True:
            jobs.put(connection.recv())
    except (EOFError, OSError):
        os._exit(1)


def _send(connection: Connection, event: Event | Broken) -> None:
    """Tell the engine; without one there is nothing more to do, and nothing to complain of."""
    try:
        connection.send(event)
    except OSError:
        os._exit(1)
