"""Gives the models of a queue to workers, and deals with those that die; wherever they run."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, Protocol, TypeVar

from vitarium.blueprint import ModelSpec
from vitarium.core import files
from vitarium.core.errors import VitariumError, WriteFault
from vitarium.engine.events import Ended, Halved, Listener, Retried, Started
from vitarium.engine.queue import Queue
from vitarium.engine.tuning.calibration import TrainMode
from vitarium.engine.worker import Broken, Died, Message, OutOfMemory, Unwritable
from vitarium.training import stack_key
from vitarium.zoo import Zoo

MAX_TRIES = 2
"""How often a model is started before a dying worker counts as its own fault."""

OUT_OF_MEMORY = (
    "out of memory with one model at a time ({cause}); "
    "give it a smaller batch_size, or another device"
)


class Worker:
    """One place where models are trained; pools have kinds of their own.

    specs: models that it was given and that have not ended, by id.
    stack: how many they were.
    among: how many workers there could be at a time when it was given them.
    """

    def __init__(self) -> None:
        self.specs: dict[str, ModelSpec] = {}
        self.stack = 0
        self.among = 0


W = TypeVar("W", bound=Worker)


class Pool(Protocol[W]):
    """Workers, on this machine or elsewhere."""

    size: int
    """Workers at a time at most. Lowered when memory runs out: what runs then runs on."""

    def idle(self) -> Iterable[W]:
        """Workers that can be given models now; asked for one by one, never more than `size`."""

    def start(self, worker: W, specs: Sequence[ModelSpec], mode: TrainMode) -> None:
        """Have an idle worker train a stack. Raises VitariumError where it cannot be started."""

    def busy(self) -> bool:
        """Whether any worker has models."""

    def messages(self) -> Iterable[tuple[W, Message]]:
        """Wait for something to happen, and yield the workers' messages.

        A worker that sent Broken, OutOfMemory or Died is no longer in the pool.
        """


def schedule(
    queue: Queue,
    pool: Pool[W],
    zoo: Zoo,
    emit: Listener,
    mode_of: Callable[[ModelSpec], TrainMode] = lambda spec: TrainMode(),
) -> None:
    """Train all models of the queue that can be trained, parents before their children.

    Models that can share a computation are handed out in stacks, as large as `mode_of` says. A
    worker that dies is reported with its cause; its models are tried once more, each from its last
    epoch. When memory runs out there are half as many models at a time from then on.

    Raises WriteFault where the zoo cannot be written any more.
    """
    _Schedule(queue, pool, zoo, emit, mode_of).to_the_end()


class Stacks:
    """Takes models from a queue in stacks.

    Args:
        way_of: how to train a model, and how many at most as one computation.
    """

    def __init__(self, queue: Queue, mode_of: Callable[[ModelSpec], TrainMode]) -> None:
        self.queue, self.mode_of = queue, mode_of
        self.max_models: int | None = None
        """Lowered when memory runs out."""
        self._keys: dict[str, str | None] = {}

    def next(self) -> tuple[list[ModelSpec], TrainMode]:
        """The models to start next, none while there are none; and how."""
        first = self.queue.next()
        if first is None:
            return [], TrainMode()
        mode = self.mode_of(first)
        size = min(mode.stacked, self.max_models or mode.stacked)
        if size == 1 or self._key(first) is None:
            return [first], mode
        return [first, *self.queue.more_like(first, self._key, size - 1)], mode

    def _key(self, spec: ModelSpec) -> str | None:
        if spec.id not in self._keys:
            self._keys[spec.id] = stack_key(spec)
        return self._keys[spec.id]


class _Schedule(Generic[W]):
    def __init__(
        self,
        queue: Queue,
        pool: Pool[W],
        zoo: Zoo,
        emit: Listener,
        mode_of: Callable[[ModelSpec], TrainMode],
    ) -> None:
        self.queue, self.pool, self.zoo, self.emit = queue, pool, zoo, emit
        self.stacks = Stacks(queue, mode_of)
        self.tries: Counter[str] = Counter()

    def to_the_end(self) -> None:
        while self.queue.can_start() or self.pool.busy():
            self._hand_out()
            if self.pool.busy() or self.queue.can_start():
                for worker, message in self.pool.messages():
                    self._handle(worker, message)

    def _hand_out(self) -> None:
        for worker in self.pool.idle():
            specs, mode = self.stacks.next()
            if not specs:
                return
            self._start(worker, specs, mode)

    def _start(self, worker: W, specs: Sequence[ModelSpec], mode: TrainMode) -> None:
        for spec in specs:
            self.tries[spec.id] += 1
            self.emit(Started(spec.id))
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
            case Died():
                self._try_again(worker, message.cause)
            case Broken():
                self._try_again(worker, message.cause, message.trace)
            case OutOfMemory():
                self._out_of_memory(worker, message.cause)
            case Unwritable():
                raise WriteFault(self.zoo.path, message.cause)
            case _:
                self.emit(message)

    def _try_again(self, worker: W, cause: str, trace: str = "") -> None:
        for spec in _taken_from(worker):
            message = cause
            if trace:
                file = self.zoo.path / "failures" / f"{spec.id}.txt"
                files.write(file, files.utf8(trace), root=self.zoo.path)
                message = f"{cause} (trace in {file})"
            if self.tries[spec.id] < MAX_TRIES:
                self.queue.put_back(spec)
                self.emit(Retried(spec.id, message))
            else:
                self.emit(Ended(spec.id, "failed", message))

    def _out_of_memory(self, worker: W, cause: str) -> None:
        """Halve what ran when the worker began, so that several at once halve it only once.

        First the models of a stack, then the workers.
        """
        if worker.among == worker.stack == 1:
            self._try_again(worker, OUT_OF_MEMORY.format(cause=cause))
            return
        for spec in _taken_from(worker):
            self.tries[spec.id] -= 1
            self.queue.put_back(spec)
            self.emit(Retried(spec.id, f"out of memory ({cause})"))
        if worker.stack > 1:
            if self.stacks.max_models is None or worker.stack // 2 < self.stacks.max_models:
                self.stacks.max_models = worker.stack // 2
                self.emit(Halved(self.stacks.max_models * self.pool.size, cause))
        elif worker.among // 2 < self.pool.size:
            self.pool.size = worker.among // 2
            self.emit(Halved(self.pool.size, cause))


def _taken_from(worker: Worker) -> list[ModelSpec]:
    """The worker's models, the last first, so that the first is put back last and comes next."""
    specs = [*reversed(worker.specs.values())]
    worker.specs = {}
    return specs
