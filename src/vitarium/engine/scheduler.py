"""Which models come next, parents and teachers first, and what becomes of workers that die."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Generic, Self, TypeVar

from vitarium.blueprint import ModelSpec, Plan
from vitarium.core import files
from vitarium.core.errors import VitariumError, WriteFault
from vitarium.engine.events import Ended, Halved, Listener, Retried, Started
from vitarium.engine.teachers import planned_teacher
from vitarium.engine.tuning.calibration import TrainMode
from vitarium.engine.worker import Fault, Message
from vitarium.training import TrainOptions, stack_key
from vitarium.zoo import Zoo

MAX_TRIES = 2
"""How often a model is started before a dying worker counts as its own fault."""

ModeOf = Callable[[ModelSpec], TrainMode]
"""How to train a model, and how many at most as one computation."""


class Queue:
    """The models of a plan that are still to be grown.

    `done` are in the zoo, with weights to start from; `without_checkpoint` are, too, but diverged.
    """

    def __init__(
        self, plan: Plan, done: Iterable[str], without_checkpoint: Iterable[str] = ()
    ) -> None:
        self._done = set(done)
        closed = {*self._done, *without_checkpoint}
        self._waiting = [model for model in plan.models if model.id not in closed]
        self._planned = {model.id for model in plan.models}
        self._keys: dict[str, str | None] = {}
        self.max_stack: int | None = None
        """Lowered when memory runs out."""

    def __len__(self) -> int:
        return len(self._waiting)

    def waiting(self) -> list[ModelSpec]:
        """All that have not been taken; once nothing runs, those that can no longer start."""
        return list(self._waiting)

    def can_start(self) -> bool:
        """Whether `next` gives a model."""
        return any(self._ready(model) for model in self._waiting)

    def next(self) -> ModelSpec | None:
        """Take the first model whose parent and teacher are done; None while there is none."""
        first = next(filter(self._ready, self._waiting), None)
        if first is not None:
            self._waiting.remove(first)
        return first

    def next_stack(self, mode_of: ModeOf) -> tuple[list[ModelSpec], TrainMode]:
        """Take that model and those to train with it, none while there are none; and how."""
        first = self.next()
        if first is None:
            return [], TrainMode()
        mode, stack = mode_of(first), [first]
        size = min(mode.stacked, self.max_stack or mode.stacked)
        if size > 1 and (key := self._key(first)) is not None:
            alike = (m for m in self._waiting if self._ready(m) and self._key(m) == key)
            stack += islice(alike, size - 1)
            for model in stack[1:]:
                self._waiting.remove(model)
        return stack, mode

    def finished(self, model: ModelSpec) -> None:
        """Its children may start."""
        self._done.add(model.id)

    def put_back(self, model: ModelSpec) -> None:
        """It comes next."""
        self._waiting.insert(0, model)

    def _ready(self, model: ModelSpec) -> bool:
        return not self.missing(model)

    def missing(self, model: ModelSpec) -> dict[str, str]:
        """What a model waits for: ids of models of the plan or the zoo, by what they are to it."""
        needed = {"parent": model.parent, "teacher": planned_teacher(model, self._planned)}
        return {role: id for role, id in needed.items() if id and id not in self._done}

    def _key(self, model: ModelSpec) -> str | None:
        if model.id not in self._keys:
            self._keys[model.id] = stack_key(model)
        return self._keys[model.id]


class Worker:
    """One place where models are trained; pools have kinds of their own.

    specs: models that it was given and that have not ended, by id.
    stack: how many they were.
    among: how many workers there could be at a time when it was given them.
    """

    def __init__(self, number: int = 0) -> None:
        self.number = number
        self.specs: dict[str, ModelSpec] = {}
        self.stack = self.among = 0

    @property
    def is_free(self) -> bool:
        """Whether it can be given models."""
        return not self.specs

    def stop(self) -> None:
        """End it, whatever it does."""


W = TypeVar("W", bound=Worker)


class Pool(ABC, Generic[W]):
    """Workers, on this machine or elsewhere; leaving the context stops them.

    size: workers at a time at most. Lowered when memory runs out: what runs then runs on.
    max_tries: see MAX_TRIES.
    """

    max_tries = MAX_TRIES

    def __init__(self, zoo: Zoo, options: TrainOptions, size: int) -> None:
        self.zoo, self.options, self.size = zoo, options, size
        self.workers: dict[int, W] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *fault: object) -> None:
        for worker in list(self.workers.values()):
            self.remove(worker)

    @abstractmethod
    def begin(self, number: int) -> W:
        """A new worker."""

    @abstractmethod
    def start(self, worker: W, specs: Sequence[ModelSpec], mode: TrainMode) -> None:
        """Have an idle worker train a stack. Raises VitariumError where it cannot be started."""

    @abstractmethod
    def receive(self, handle: Callable[[W, Message], None]) -> None:
        """Wait for messages and give them to `handle`; who sent a Fault is out of the pool."""

    def idle(self) -> Iterable[W]:
        """Workers that can be given models now, at most `size`; missing ones are begun as asked."""
        for worker in list(self.workers.values()):
            if worker.number >= self.size and not worker.specs:
                self.remove(worker)  # even an idle process holds memory
        for number in range(self.size):
            if sum(bool(worker.specs) for worker in self.workers.values()) >= self.size:
                return
            if number not in self.workers:
                self.workers[number] = self.begin(number)
            if self.workers[number].is_free:
                yield self.workers[number]

    def busy(self) -> bool:
        return any(worker.specs for worker in self.workers.values())

    def remove(self, worker: W) -> None:
        del self.workers[worker.number]
        worker.stop()


@dataclass(eq=False)
class Scheduler(Generic[W]):
    """Trains all models of a queue that can be trained, parents before their children.

    Models that can share a computation are handed out in stacks, as large as `mode_of` says. A
    worker that dies is reported with its cause; its models are tried once more, each from its last
    epoch. When memory runs out there are half as many models at a time from then on.
    """

    queue: Queue
    pool: Pool[W]
    zoo: Zoo
    emit: Listener
    mode_of: ModeOf = lambda spec: TrainMode()
    tries: Counter[str] = field(default_factory=Counter, init=False)

    def run(self) -> None:
        """Raises WriteFault where the zoo cannot be written any more."""
        while self.queue.can_start() or self.pool.busy():
            for worker in self.pool.idle():
                specs, mode = self.queue.next_stack(self.mode_of)
                if not specs:
                    break
                self._start(worker, specs, mode)
            if self.pool.busy() or self.queue.can_start():
                self.pool.receive(self._handle)

    def _start(self, worker: W, specs: Sequence[ModelSpec], mode: TrainMode) -> None:
        for spec in specs:
            self.tries[spec.id] += 1
            self.emit(Started(spec.id, worker.number))
        try:
            self.pool.start(worker, specs, mode)
        except VitariumError as error:
            for spec in specs:
                self.emit(Ended(spec.id, "failed", str(error)))
        else:
            worker.among, worker.stack = self.pool.size, len(specs)
            worker.specs = {spec.id: spec for spec in specs}

    def _handle(self, worker: W, message: Message) -> None:
        match message:
            case Ended():
                spec = worker.specs.pop(message.model)
                if message.status == "finished":
                    self.queue.finished(spec)
                self.emit(message)
            case Fault("unwritable"):
                raise WriteFault(self.zoo.path, message.cause)
            case Fault("out-of-memory"):
                self._out_of_memory(worker, message.cause)
            case Fault():
                self._try_again(worker, message.cause, message.trace)
            case _:
                self.emit(message)

    def _try_again(self, worker: W, cause: str, trace: str = "") -> None:
        for spec in _taken_from(worker):
            message = cause
            if trace:
                file = self.zoo.path / "failures" / f"{spec.id}.txt"
                files.write(file, files.utf8(trace), root=self.zoo.path)
                message = f"{cause} (trace in {file})"
            if self.tries[spec.id] < self.pool.max_tries:
                self.queue.put_back(spec)
                self.emit(Retried(spec.id, message))
            else:
                self.emit(Ended(spec.id, "failed", message))

    def _out_of_memory(self, worker: W, cause: str) -> None:
        """Halve the stack, then the workers, of when it began: several at once halve only once."""
        if worker.among == worker.stack == 1:
            remedy = "give it a smaller batch_size, or another device"
            self._try_again(worker, f"out of memory with one model at a time ({cause}); {remedy}")
            return
        for spec in _taken_from(worker):
            self.tries[spec.id] -= 1
            self.queue.put_back(spec)
            self.emit(Retried(spec.id, f"out of memory ({cause})"))
        if worker.stack > 1:
            if self.queue.max_stack is None or worker.stack // 2 < self.queue.max_stack:
                self.queue.max_stack = worker.stack // 2
                self.emit(Halved(self.queue.max_stack * self.pool.size, cause))
        elif worker.among // 2 < self.pool.size:
            self.pool.size = worker.among // 2
            self.emit(Halved(self.pool.size, cause))


def _taken_from(worker: Worker) -> list[ModelSpec]:
    """The worker's models, the last first, so that the first is put back last and comes next."""
    specs = [*reversed(worker.specs.values())]
    worker.specs = {}
    return specs
