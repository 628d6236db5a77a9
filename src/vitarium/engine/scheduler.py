"""Gives the models of a queue to workers, and deals with those that die; wherever they run."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, Protocol, TypeVar

from vitarium.blueprint import ModelSpec
from vitarium.core import files
from vitarium.core.errors import VitariumError, WriteFault
from vitarium.engine.events import Ended, Halved, Listener, Retried, Started
from vitarium.engine.queue import Queue
from vitarium.engine.tuning.calibration import Way
from vitarium.engine.worker import Broken, Died, Message, OutOfMemory, Unwritable
from vitarium.training import stack_key
from vitarium.zoo import Zoo

TRIES = 2
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

    def start(self, worker: W, specs: Sequence[ModelSpec], way: Way) -> None:
        """Have an idle worker train a stack. Raises VitariumError where it cannot be started."""

    def busy(self) -> bool:
        """Whether any worker has models."""

    def messages(self) -> Iterable[tuple[W, Message]]:
        """Wait for something to happen, and give what the workers told.

        A worker that told Broken, OutOfMemory or Died is no longer in the pool.
        """


def schedule(
    queue: Queue,
    pool: Pool[W],
    zoo: Zoo,
    tell: Listener,
    way_of: Callable[[ModelSpec], Way] = lambda spec: Way(),
) -> None:
    """Train all models of the queue that can be trained, parents before their children.

    Models that can share a computation are handed out in stacks, as large as `way_of` says. A
    worker that dies is reported with its cause; its models are tried once more, each from its last
    epoch. When memory runs out there are half as many models at a time from then on.

    Raises WriteFault where the zoo cannot be written any more.
    """
    _Schedule(queue, pool, zoo, tell, way_of).to_the_end()


class Stacks:
    """Takes models from a queue in stacks.

    Args:
        way_of: how to train a model, and how many at most as one computation.
    """

    def __init__(self, queue: Queue, way_of: Callable[[ModelSpec], Way]) -> None:
        self.queue, self.way_of = queue, way_of
        self.most: int | None = None
        """Lowered when memory runs out."""
        self._keys: dict[str, str | None] = {}

    def next(self) -> tuple[list[ModelSpec], Way]:
        """The models to start next, none while there are none; and how."""
        first = self.queue.next()
        if first is None:
            return [], Way()
        way = self.way_of(first)
        size = min(way.stacked, self.most or way.stacked)
        if size == 1 or self._key(first) is None:
            return [first], way
        return [first, *self.queue.more_like(first, self._key, size - 1)], way

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
        tell: Listener,
        way_of: Callable[[ModelSpec], Way],
    ) -> None:
        self.queue, self.pool, self.zoo, self.tell = queue, pool, zoo, tell
        self.stacks = Stacks(queue, way_of)
        self.tries: Counter[str] = Counter()

    def to_the_end(self) -> None:
        while self.queue.can_start() or self.pool.busy():
            self._hand_out()
            if self.pool.busy() or self.queue.can_start():
                for worker, message in self.pool.messages():
                    self._handle(worker, message)

    def _hand_out(self) -> None:
        for worker in self.pool.idle():
            specs, way = self.stacks.next()
            if not specs:
                return
            self._start(worker, specs, way)

    def _start(self, worker: W, specs: Sequence[ModelSpec], way: Way) -> None:
        for spec in specs:
            self.tries[spec.id] += 1
            self.tell(Started(spec.id))
        try:
            self.pool.start(worker, specs, way)
        except VitariumError as error:
            for spec in specs:
                self.tell(Ended(spec.id, "failed", str(error)))
        else:
            worker.among, worker.stack = self.pool.size, len(specs)
            worker.specs = {spec.id: spec for spec in specs}

    def _handle(self, worker: W, message: Message) -> None:
        match message:
            case Ended():
                spec = worker.specs.pop(message.model)
                if message.status == "finished":
                    self.queue.finished(spec)
                self.tell(message)
            case Died():
                self._try_again(worker, message.cause)
            case Broken():
                self._try_again(worker, message.cause, message.trace)
            case OutOfMemory():
                self._out_of_memory(worker, message.cause)
            case Unwritable():
                raise WriteFault(self.zoo.path, message.cause)
            case _:
                self.tell(message)

    def _try_again(self, worker: W, cause: str, trace: str = "") -> None:
        for spec in _taken_from(worker):
            told = cause
            if trace:
                file = self.zoo.path / "failures" / f"{spec.id}.txt"
                files.write(file, files.utf8(trace), root=self.zoo.path)
                told = f"{cause} (trace in {file})"
            if self.tries[spec.id] < TRIES:
                self.queue.put_back(spec)
                self.tell(Retried(spec.id, told))
            else:
                self.tell(Ended(spec.id, "failed", told))

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
            self.tell(Retried(spec.id, f"out of memory ({cause})"))
        if worker.stack > 1:
            if self.stacks.most is None or worker.stack // 2 < self.stacks.most:
                self.stacks.most = worker.stack // 2
                self.tell(Halved(self.stacks.most * self.pool.size, cause))
        elif worker.among // 2 < self.pool.size:
            self.pool.size = worker.among // 2
            self.tell(Halved(self.pool.size, cause))


def _taken_from(worker: Worker) -> list[ModelSpec]:
    """The worker's models, the last first, so that the first is put back last and comes next."""
    specs = [*reversed(worker.specs.values())]
    worker.specs = {}
    return specs
