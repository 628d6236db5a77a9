"""A worker: a process of its own that trains one job after another.

Its arguments are its number of threads and one end of a socket pair, through which jobs come in and
messages go out. When the other end is gone, so is the worker: a killed engine leaves nothing.
"""

import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from multiprocessing.connection import Connection
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from vitarium.blueprint import ModelSpec
from vitarium.blueprint.parents import start_architecture
from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.errors import VitariumError, WriteFault
from vitarium.core.registry import Section
from vitarium.engine.events import Ended, Event, Listener, Stepped
from vitarium.engine.kept_companions import parent_companions
from vitarium.engine.teacher_images import teacher_normalization
from vitarium.engine.teachers import load_teacher, teacher_of
from vitarium.evaluation.loader import ModelLoader
from vitarium.operators.base import Ingredients
from vitarium.training import Task, TrainOptions, train_together
from vitarium.zoo import Zoo

STEP_EVENTS_PER_SECOND = 5


class Job(NamedTuple):
    """Models to train into a zoo."""

    zoo: str
    specs: tuple[Mapping[str, Any], ...]
    """As ModelSpec.factors gives them: plain values, so nothing else is unpickled."""
    options: TrainOptions


class Fault(NamedTuple):
    """A worker cannot go on, and is replaced.

    died: it is gone; sent by its pool.
    broken: something failed that may have left the process in a bad state.
    out-of-memory: a device or the machine had too little.
    unwritable: the zoo cannot be written: its disk is full, or has become read-only.
    """

    kind: Literal["died", "broken", "out-of-memory", "unwritable"]
    cause: str
    trace: str = ""


Message = Event | Fault
Send = Callable[[Message], None]


def run_job(job: Job, emit: Listener) -> None:
    """Train the job's models in this process, as one stack, and emit what happens.

    What is wrong with one model alone (a VitariumError) ends that one as failed. Raises WriteFault
    where the zoo cannot be written, which no other model could be either, and as training does.
    """
    zoo = Zoo.open(job.zoo)
    tasks: list[Task] = []
    # the models of a stack often have one parent, and one teacher
    read = cache(zoo.state_dict)
    teachers: dict[Any, nn.Module | None] = {}
    for factors in job.specs:
        try:
            spec = ModelSpec.restore(factors)
            parent, teacher = starting_weights(zoo, spec, read), teacher_of(spec)
            at = (spec.parent, spec.parent_epoch) if teacher and teacher.is_parent else None
            if (teacher, at) not in teachers:
                teachers[teacher, at] = load_teacher(spec, zoo)
            architecture = parent_architecture(zoo, spec)
            request = teachers[teacher, at], teacher_normalization(spec, zoo, job.options.data_dir)
            beside = parent_companions(spec, zoo)
            tasks.append(
                Task(
                    spec, zoo.folder(spec.id), parent, request[0], architecture, request[1], beside
                )
            )
        except VitariumError as error:
            emit(Ended(factors["id"], "failed", str(error)))
    _train(tasks, job.options, emit)


def starting_weights(
    zoo: Zoo, spec: ModelSpec, read: Callable[[str, int], Mapping[str, Tensor]]
) -> Mapping[str, Tensor] | None:
    """The parent's weights [*shape] by name, or what the spec's conversion makes of them.

    None: from scratch. Raises as `read`, which gives a model's weights after an epoch, and the
    conversion's operator do.
    """
    if spec.parent is None:
        return None
    epoch = spec.parent_epoch or 0
    if spec.conversion is None:
        return read(spec.parent, epoch)
    parent = ModelLoader(zoo).weights(CheckpointRef(spec.parent, epoch))
    unchanged = {name: parent[name] for name in parent if name not in parent.shapes}
    converted = spec.conversion(Ingredients([parent]))
    return unchanged | {n: t.to(parent.dtype(n)) if n in parent.shapes else t for n, t in converted}


def parent_architecture(zoo: Zoo, spec: ModelSpec) -> Section | None:
    """Of the weights that `starting_weights` gives, where that is known."""
    if spec.parent is None:
        return None
    return start_architecture(zoo.spec(spec.parent).origin, spec.conversion)


def _train(tasks: Sequence[Task], options: TrainOptions, emit: Listener) -> None:
    last_emitted: dict[str, float] = {}

    def report(event: Event) -> None:
        if isinstance(event, Stepped):
            now = time.monotonic()
            if now - last_emitted.get(event.model, 0.0) <= 1 / STEP_EVENTS_PER_SECOND:
                return
            last_emitted[event.model] = now
        emit(event)

    try:
        outcomes = train_together(tasks, options=options, report=report)
        for task in tasks:
            message = (task.folder.result() or {}).get("message", "")
            emit(Ended(task.spec.id, outcomes[task.spec.id], message))
    except WriteFault:
        raise
    except VitariumError as error:
        if len(tasks) == 1:
            emit(Ended(tasks[0].spec.id, "failed", str(error)))
            return
        for task in tasks:  # by itself each shows whether it is the one that fails
            _train([task], options, emit)


def attempt(work: Callable[[], None], send: Send) -> bool:
    """Do the work; send a Fault and return False where it raises."""
    try:
        work()
    except WriteFault as error:
        send(Fault("unwritable", str(error)))
    except Exception as error:
        cause = f"{type(error).__name__}: {error}"
        if is_out_of_memory(error):
            send(Fault("out-of-memory", cause.partition("\n")[0]))
        else:
            send(Fault("broken", cause, traceback.format_exc()))
    else:
        return True
    return False


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a GPU's, numpy's, Python's or PyTorch's allocation failed."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # PyTorch has no type of its own for the CPU's allocator and for the libraries' handles
    messages = ("can't allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(words in str(error) for words in messages)


def main() -> None:
    """What a worker's process runs, until the engine is gone or a job has broken it."""
    torch.set_num_threads(int(sys.argv[1]))
    connection = Connection(int(sys.argv[2]))
    jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()

    def listen() -> None:
        with suppress(EOFError, OSError):
            while True:
                jobs.put(connection.recv())
        os._exit(1)

    def send(message: Message) -> None:
        try:
            connection.send(message)
        except OSError:  # without an engine nothing is left to do, nor to complain of
            os._exit(1)

    threading.Thread(target=listen, daemon=True).start()
    while attempt(partial(run_job, jobs.get(), emit=send), send):
        pass
    sys.exit(1)
