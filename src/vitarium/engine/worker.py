"""A worker: a process of its own that trains one job after another.

Its arguments are one end of a socket pair, through which jobs come in and messages go out, and its
number of threads. When the other end is gone, so is the worker: an engine that
was killed leaves nothing running behind.
"""

import os
import queue
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import nn

from vitarium.blueprint import ModelSpec
from vitarium.core.errors import VitariumError, WriteFault
from vitarium.engine.events import Ended, EpochEnded, Event, Listener, Spent, Stepped
from vitarium.engine.starting_weights import starting_weights
from vitarium.engine.teachers import load_teacher, teacher_of
from vitarium.training import EpochDone, Span, Step, Task, TrainOptions, train_together
from vitarium.zoo import Zoo

STEP_EVENTS_PER_SECOND = 5


@dataclass(frozen=True)
class Job:
    """Models to train into a zoo."""

    zoo: str
    specs: tuple[Mapping[str, Any], ...]
    """As ModelSpec.factors gives them: plain values, so nothing else is unpickled."""
    options: TrainOptions


@dataclass(frozen=True)
class Broken:
    """Something failed that may have left the process in a bad state; the worker is replaced."""

    cause: str
    trace: str


@dataclass(frozen=True)
class OutOfMemory:
    """A device or the machine had too little memory; the worker is replaced."""

    cause: str


@dataclass(frozen=True)
class Died:
    """The worker is gone; sent by its pool."""

    cause: str


@dataclass(frozen=True)
class Unwritable:
    """The zoo cannot be written any more: its disk is full, or has become read-only."""

    cause: str


Message = Event | Broken | OutOfMemory | Died | Unwritable
Send = Callable[[Message], None]


def run_job(job: Job, emit: Listener) -> None:
    """Train the job's models in this process, as one stack, and emit what happens.

    What is wrong with one model alone (a VitariumError) ends that one as failed. Raises WriteFault
    where the zoo cannot be written, which no other model could be either, and whatever else
    training raises.
    """
    zoo = Zoo.open(job.zoo)
    tasks: list[Task] = []
    read = cache(zoo.state_dict)  # the models of a stack often have one parent
    teachers: dict[Any, nn.Module | None] = {}
    for factors in job.specs:
        try:
            spec = ModelSpec.restore(factors)
            parent = starting_weights(zoo, spec, read)
            tasks.append(Task(spec, zoo.folder(spec.id), parent, _teacher(spec, zoo, teachers)))
        except VitariumError as error:
            emit(Ended(factors["id"], "failed", str(error)))
    if len(tasks) > 1:
        try:
            _train(tasks, job.options, emit)
            return
        except WriteFault:
            raise
        except VitariumError:
            pass  # of one of them: by itself each shows whether it is that one
    for task in tasks:
        try:
            _train([task], job.options, emit)
        except WriteFault:
            raise
        except VitariumError as error:
            emit(Ended(task.spec.id, "failed", str(error)))


def _teacher(spec: ModelSpec, zoo: Zoo, loaded: dict[Any, nn.Module | None]) -> nn.Module | None:
    """The model's teacher; those of a job often have the same one."""
    teacher = teacher_of(spec)
    checkpoint = (spec.parent, spec.parent_epoch) if teacher and teacher.is_parent else None
    if (teacher, checkpoint) not in loaded:
        loaded[teacher, checkpoint] = load_teacher(spec, zoo)
    return loaded[teacher, checkpoint]


def attempt(work: Callable[[], None], send: Send) -> bool:
    """Do the work; send Unwritable, Broken or OutOfMemory and return False where it raises."""
    try:
        work()
    except WriteFault as error:
        send(Unwritable(str(error)))
        return False
    except Exception as error:
        cause = f"{type(error).__name__}: {error}"
        if is_out_of_memory(error):
            send(OutOfMemory(cause.partition("\n")[0]))
        else:
            send(Broken(cause, traceback.format_exc()))
        return False
    return True


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a GPU's, numpy's, Python's or PyTorch's allocation failed."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # PyTorch has no type of its own for the CPU's allocator and for the libraries' handles
    messages = ("can't allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(words in str(error) for words in messages)


def _train(tasks: Sequence[Task], options: TrainOptions, emit: Listener) -> None:
    worker, last_told = f"{socket.gethostname()} {os.getpid()}", dict[str, float]()

    def report(model: str, event: Step | EpochDone | Span) -> None:
        match event:
            case EpochDone():
                emit(EpochEnded(model, event.epoch, event.metrics))
            case Span():
                emit(Spent(model, worker, event.what, event.start, event.end, event.epoch))
            case Step():
                now = time.monotonic()
                if now - last_told.get(model, 0.0) > 1 / STEP_EVENTS_PER_SECOND:
                    last_told[model] = now
                    emit(Stepped(model, event.epoch, event.step, event.steps))

    outcomes = train_together(tasks, options=options, report=report)
    for task in tasks:
        message = (task.folder.result() or {}).get("message", "")
        emit(Ended(task.spec.id, outcomes[task.spec.id], message))


def main() -> None:
    """What a worker's process runs, until the engine is gone or a job has broken it."""
    connection = Connection(int(sys.argv[1]))
    torch.set_num_threads(int(sys.argv[2]))
    jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, jobs), daemon=True).start()
    send = partial(_send, connection)
    while attempt(partial(run_job, jobs.get(), send), send):
        pass
    sys.exit(1)


def _listen(connection: Connection, jobs: "queue.SimpleQueue[Job]") -> None:
    try:
        while True:
            jobs.put(connection.recv())
    except (EOFError, OSError):
        os._exit(1)


def _send(connection: Connection, message: Message) -> None:
    """Tell the engine; without one there is nothing more to do, and nothing to complain of."""
    try:
        connection.send(message)
    except OSError:
        os._exit(1)
