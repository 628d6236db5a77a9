"""The Ray engine: workers on a cluster, or on a local one that is started for the occasion."""

import json
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from vitarium.blueprint import ModelSpec, Recipe
from vitarium.core import files
from vitarium.core.cores import available_cores
from vitarium.core.errors import InvalidInput
from vitarium.engine.pools._ray_connection import NoCluster, capacity, connected, the_ray
from vitarium.engine.pools._ray_worker import RayWorker
from vitarium.engine.scheduler import Pool, Queue, Worker
from vitarium.engine.shipping import FileSent, pack, unload
from vitarium.engine.tuning.auto_tuner import AutoTuner
from vitarium.engine.tuning.calibration import PLAIN, Calibration, Speed, TrainMode
from vitarium.engine.tuning.gain import Gain
from vitarium.engine.tuning.machine import Machine
from vitarium.engine.worker import Fault, Job, Message
from vitarium.training import Precision, TrainOptions
from vitarium.zoo import Zoo

FAILED_STARTS = 3
"""So many workers in a row that do not even start are the cluster's fault."""


@contextmanager
def on_ray(
    address: str | None, workers: int | None, device: str, cpus: int, gpus: float | None
) -> Iterator["RayEngine"]:
    """Join a cluster for a while; the arguments are those of `grow`, cpus and gpus of each model.

    Raises InvalidInput for what contradicts itself, and NoCluster.
    """
    if workers is not None and workers < 1:
        raise InvalidInput(f"{workers} workers with the ray engine: give 1 or more")
    if device not in ("auto", "cpu", "cuda"):
        raise InvalidInput(
            f"device '{device}' with the ray engine: choose auto, cpu or cuda; "
            "which GPU it is, is the cluster's matter"
        )
    if cpus < 1:
        raise InvalidInput(f"{cpus} CPUs per model: give 1 or more")
    if gpus is not None and not 0 <= gpus <= 1:
        raise InvalidInput(f"{gpus:g} GPUs per model: a model uses one GPU, or a part of one")
    if gpus is not None and bool(gpus) != (device == "cuda") and device != "auto":
        raise InvalidInput(f"{gpus:g} GPUs per model contradict the device '{device}'")
    with connected(address, max(available_cores(), (workers or 1) * cpus)):
        if gpus is None:
            has_gpus = bool(the_ray().cluster_resources().get("GPU"))
            gpus = float(device == "cuda" or (device == "auto" and has_gpus))
        room = capacity(cpus, gpus)
        yield RayEngine(workers or room, cpus, gpus)


class RayEngine:
    """Workers on a cluster, `size` of them at a time."""

    def __init__(self, size: int, cpus: int, gpus: float) -> None:
        self.machine = Machine(("cuda" if gpus else "cpu",), size, cpus)
        self._actor = actor_class(cpus, gpus)

    def calibration(self, notify: Callable[[str], None]) -> Calibration:
        """Measures on a worker: this machine may have other devices than the cluster."""
        return RemoteCalibration(self.machine, self._actor, notify)

    def pool(self, queue: Queue, zoo: Zoo, options: TrainOptions, tuner: AutoTuner) -> Pool[Any]:
        size = min(self.machine.workers, len(queue))
        options = replace(options, device=self.machine.devices[0])
        return RayPool(zoo, options, size, self.machine.threads, self._actor)


class RemoteCalibration(Calibration):
    """Asks a worker of the cluster, which is begun when there is something to ask."""

    def __init__(self, machine: Machine, actor: Any, notify: Callable[[str], None]) -> None:
        super().__init__(machine.devices[0], machine.threads, notify)
        self._class, self._ray = actor, the_ray()
        self._answers: dict[str, Any] = {}
        self._actor: Any = None

    def speed(self, recipe: Recipe, num_outputs: int, mode: TrainMode = PLAIN) -> Speed:
        return self._ask("speed", recipe.factors(), num_outputs, mode)

    def gain(
        self,
        recipe: Recipe,
        num_outputs: int,
        mode: TrainMode,
        faster: TrainMode,
        *,
        series: int = 0,
    ) -> Gain:
        return self._ask("gain", recipe.factors(), num_outputs, mode, faster, series)

    def knows(self, recipe: Recipe, num_outputs: int, mode: TrainMode) -> bool:
        return _key("speed", recipe.factors(), num_outputs, mode) in self._answers

    def precisions(self) -> list[Precision]:
        return self._ask("precisions")

    def __exit__(self, *fault: object) -> None:
        if self._actor is not None:
            self._ray.kill(self._actor)
            self._actor = None

    def _ask(self, what: str, *about: Any) -> Any:
        key = _key(what, *about)
        if key not in self._answers:
            self._check_measures()
            if self._actor is None:
                self._actor = self._class.remote(self.threads, str(Path.cwd()))
            try:
                reference = getattr(self._actor, what).remote(self.device, *about)
                self._answers[key] = self._ray.get(reference)
            except self._ray.exceptions.RayError as error:
                raise NoCluster(f"a worker failed to measure: {_in_short(error)}") from None
        return self._answers[key]


def _key(*question: Any) -> str:
    return json.dumps(question, sort_keys=True, default=str)


def actor_class(cpus: int, gpus: float) -> Any:
    """RayWorker as an actor, with our settings and the folders of plug-ins that lie outside."""
    variables = {name: value for name, value in os.environ.items() if name.startswith("VITARIUM_")}
    variables["OMP_NUM_THREADS"] = str(cpus)
    installed = (sys.prefix, sys.base_prefix)
    outside = [path for path in sys.path if path and not path.startswith(installed)]
    if outside:
        variables["PYTHONPATH"] = os.pathsep.join(outside)
    settings = {"env_vars": variables}
    remote = the_ray().remote(num_cpus=cpus, num_gpus=gpus, max_restarts=0, runtime_env=settings)
    return remote(RayWorker)


class _Actor(Worker):
    """An actor on some node. `shared`: whether it sees the zoo's folder; None until it is up."""

    def __init__(self, number: int, actor: Any, up: Any) -> None:
        super().__init__(number)
        self.actor, self.up = actor, up
        self.shared: bool | None = None
        self.stream: Any = None

    @property
    def awaited(self) -> Any:
        """What Ray is to wait for: its job's messages, if any, once it is up."""
        return self.up if self.shared is None else self.stream

    @property
    def is_free(self) -> bool:
        return self.awaited is None

    def stop(self) -> None:
        the_ray().kill(self.actor)


class RayPool(Pool[_Actor]):
    """As many actors as wanted; they count from when they are up, and the lost are replaced.

    On a full cluster some may never come up: they have no models, so nothing waits for them.
    """

    def __init__(
        self, zoo: Zoo, options: TrainOptions, size: int, threads: int, actor: Any
    ) -> None:
        data_dir = options.data_dir.resolve() if options.data_dir else None
        super().__init__(Zoo(zoo.path.resolve()), replace(options, data_dir=data_dir), size)
        self._ray, self._class, self._threads = the_ray(), actor, threads
        self._token = _write_token(self.zoo)
        self._failed_starts = 0

    def __exit__(self, *fault: object) -> None:
        super().__exit__(*fault)
        self._token[0].unlink(missing_ok=True)

    def begin(self, number: int) -> _Actor:
        actor = self._class.remote(self._threads, str(Path.cwd()))
        return _Actor(number, actor, actor.sees.remote(*self._token))

    def start(self, worker: _Actor, specs: Sequence[ModelSpec], mode: TrainMode) -> None:
        goods = None if worker.shared else pack(self.zoo, specs)
        factors = tuple(spec.factors() for spec in specs)
        job = Job(str(self.zoo.path), factors, mode.options(self.options))
        worker.stream = worker.actor.run.options(num_returns="streaming").remote(job, goods)

    def receive(self, handle: Callable[[_Actor, Message], None]) -> None:
        awaited = {worker.awaited: worker for worker in self.workers.values() if worker.awaited}
        if not awaited:
            return
        for ready in self._ray.wait(list(awaited), fetch_local=False)[0]:
            worker = awaited[ready]
            message = self._message(worker)
            if isinstance(message, Fault):
                self.remove(worker)
            if isinstance(message, FileSent):
                unload(message, self.zoo)
            elif message:
                handle(worker, message)

    def _message(self, worker: _Actor) -> Message | FileSent | None:
        """What came; None if the worker is up, or is through with its job."""
        try:
            if worker.shared is None:
                worker.shared = self._ray.get(worker.up)
                self._failed_starts = 0
                return None
            message: Message | FileSent = self._ray.get(next(worker.stream))
        except StopIteration:
            worker.stream = None
            return Fault("died", "its Ray worker ended too early") if worker.specs else None
        except self._ray.exceptions.RayError as error:
            cause = _in_short(error)
            if worker.shared is None:
                self._failed_starts += 1
                if self._failed_starts == FAILED_STARTS:
                    raise NoCluster(f"workers do not start on the cluster: {cause}") from None
            if isinstance(error, self._ray.exceptions.OutOfMemoryError):
                return Fault("out-of-memory", cause)
            return Fault("died", f"its Ray worker was lost: {cause}")
        return message


def _write_token(zoo: Zoo) -> tuple[Path, bytes]:
    """A file that only those see who share the zoo's folder."""
    file, content = zoo.path / ".engine", secrets.token_bytes(32)
    files.write(file, content)
    return file, content


def _in_short(error: Exception) -> str:
    """Ray puts the reason last, before general advice."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].partition(" Some common causes")[0] if lines else type(error).__name__
