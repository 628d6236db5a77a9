"""Grow: from a blueprint to a zoo."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from vitarium.blueprint import Blueprint, Plan, plan
from vitarium.blueprint.numerics import Numerics
from vitarium.core.errors import InvalidInput
from vitarium.core.filenames import user_path
from vitarium.core.parameters import parameter
from vitarium.engine.changed_bits import changed_bits
from vitarium.engine.check import ModelCheck
from vitarium.engine.evaluation_notes import unscored
from vitarium.engine.events import Ended, Event, Listener, Notice
from vitarium.engine.growth import Growth
from vitarium.engine.interrupts import TimeLimit, interrupts
from vitarium.engine.parents import parents_in
from vitarium.engine.part import part_of
from vitarium.engine.plugin_modules import known_to_workers
from vitarium.engine.pools.local import LocalEngine
from vitarium.engine.progress.display import announce, display, labels
from vitarium.engine.progress.remaining import Remaining
from vitarium.engine.progress.status import StatusWriter
from vitarium.engine.progress.timeline import Timeline
from vitarium.engine.progress.tracker import Tracker
from vitarium.engine.scheduler import Pool, Queue, Scheduler
from vitarium.engine.training_logs import TrainingLogs, chosen_loggers
from vitarium.engine.tuning.auto_tuner import AutoTuner, TrainRequest
from vitarium.engine.tuning.calibration import Calibration
from vitarium.engine.tuning.machine import Machine
from vitarium.training import Precision, TrainOptions
from vitarium.zoo import Zoo
from vitarium.zoo.lock import held

if TYPE_CHECKING:
    pass

EngineName = Literal["local", "ray"]


class Engine(Protocol):
    """Where models are trained."""

    machine: Machine

    def calibration(self, notify: Callable[[str], None]) -> Calibration:
        """What measures speeds where models will be trained; a context that ends with that."""

    def pool(self, queue: Queue, zoo: Zoo, options: TrainOptions, tuner: AutoTuner) -> Pool[Any]:
        """The workers for the models of a queue."""


def grow(
    blueprint: Blueprint | Plan | Mapping[str, Any] | str | Path,
    zoo: Zoo | str | Path,
    *,
    stages: Collection[str] | None = None,
    only: str = "",
    workers: int | None = None,
    threads: int | None = None,
    device: str | None = None,
    data_dir: str | Path | None = None,
    loader_workers: int | None = None,
    deterministic: bool | None = None,
    precision: Precision | Literal["auto"] | None = None,
    compiled: bool | Literal["auto"] | None = None,
    stacked: int | Literal["auto"] | None = None,
    wait: bool = False,
    max_minutes: float | None = None,
    trace: bool = False,
    logs: Sequence[str | Mapping[str, Any]] = (),
    engine: EngineName = "local",
    address: str | None = None,
    cpus_per_model: int | None = None,
    gpus_per_model: float | None = None,
    progress: bool = True,
    listener: Listener | None = None,
) -> Growth:
    """Train every model of a blueprint that the zoo does not have yet.

    If it is interrupted, call it again: it resumes after each model's last finished epoch, and the
    weights are the same, bit for bit, as without the interruption.

    Args:
        blueprint: a Blueprint, a YAML file, the name of one that vitarium ships, or the nested
            mapping that such a file holds; or a Plan, whose models' parents may be in the zoo
            already.
        zoo: the zoo's folder; made if it is not there.
        stages: only models of these stages, and what they start from.
        only: only models that fulfill this SQL condition over their factors, and what they start
            from; see `engine.part.part_of`.
        workers: models trained at a time, each in a process of its own; 0: in this process.
            Default: one per core with one thread each, or one per GPU; with Ray, as many as the
            cluster holds.
        threads: of each worker. Default: the cores divided among the workers.
        device: "auto" (a GPU where there is one), "cpu", "cuda" or "cuda:1".
        data_dir: dataset folder, searched first.
        loader_workers: processes per model that decode images, for data that is not decoded
            beforehand. Default: the cores that the workers leave, or none on CPUs.
        deterministic: the same bits from the same spec; False lets a GPU use faster kernels.
        precision: "fp32", "tf32", "bf16" (autocast), or "auto": the fastest that this machine has,
            as measured once for each kind of model. An unfinished model goes on as it was begun.
        compiled: whether torch.compile makes a program of the model; "auto": where the plan is
            long enough to repay it.
        stacked: how many models at most are trained as one computation; "auto": as many as pays.
        wait: until another process that grows this zoo is done, instead of giving up.
        max_minutes: after which it ends as by Ctrl-C, with what is finished; called again, it goes
            on to the same bits. Default: when all is done.
        trace: write what each worker did when to the zoo's timeline.json (Chrome's trace events).
        logs: loggers that write the training for other tools, by name or as a mapping with a name
            and settings: ["csv", {"name": "wandb", "project": "vits"}].
        engine: "local" (processes on this machine) or "ray" (a cluster); the bits are the same.
        address: of the Ray cluster: "auto" or "HOST:PORT". Default: one is started on this
            machine. A process that has called `ray.init` stays where it is.
        cpus_per_model: with Ray, also a worker's number of threads. Default: 1.
        gpus_per_model: with Ray; a fraction lets models share a GPU. Default: 1 on GPUs.
        progress: show progress on the terminal.
        listener: is called with every event.

    What is None of workers, threads, device, deterministic, precision, compiled and stacked is as
    the blueprint's `numerics` say, or else the default that is named first.

    Raises InvalidConfig for a blueprint that is not valid, InvalidInput, MissingExtra for a logger
    whose library is not installed, and NoCluster for a Ray
    cluster that is not there, before anything is written; ZooInUse where another process grows the
    zoo. A model that fails does not stop the others: see Growth.
    """
    time_limit = TimeLimit(max_minutes)
    loggers = chosen_loggers(logs)
    folder = user_path(data_dir) if data_dir else None
    parents = parents_in(zoo)
    check = ModelCheck(zoo, folder, needs_data=engine == "local")
    if isinstance(blueprint, Mapping):
        blueprint = Blueprint.read(blueprint, parents, check)
    elif not isinstance(blueprint, Blueprint | Plan):
        blueprint = Blueprint.load(blueprint, parents, check)
    if isinstance(blueprint, Plan):
        planned = blueprint
        check.check_plan(planned)
    else:
        planned = plan(blueprint, parents, check)
    planned = part_of(planned, stages, only)
    chosen = planned.numerics.updated(
        workers=workers,
        threads=threads,
        device=device,
        deterministic=deterministic,
        precision=precision,
        compiled=compiled,
        stacked=stacked,
    )
    request = TrainRequest(chosen.precision, chosen.compiled, chosen.stacked)
    with ExitStack() as stack:
        stack.enter_context(time_limit)
        if engine == "ray" or chosen.workers != 0:
            stack.enter_context(known_to_workers(planned))
        where = _engine(engine, chosen, address, cpus_per_model, gpus_per_model)
        trainer = stack.enter_context(where)
        machine = trainer.machine
        growth = Growth(Zoo.create(zoo), planned)
        say = announce if progress else lambda text: None
        for id in parents.import_missing({spec.parent for spec in planned.models}, wait=wait):
            say(f"imported {growth.zoo[id].spec.described()['name']} as {id}")
        stack.enter_context(held(growth.zoo.path, wait=wait, say=say))
        if isinstance(blueprint, Blueprint):
            growth.zoo.add_blueprint(blueprint)
        if loader_workers is None:  # on GPUs the cores are free to decode; on CPUs they train
            loader_workers = 0 if machine.devices == ("cpu",) else min(machine.threads, 8)
        options = TrainOptions(machine.devices[0], loader_workers, folder, chosen.deterministic)
        queue = _queue(growth)
        remaining = Remaining(planned, growth.existing, machine.workers)
        names = labels(planned)
        at_a_time = min(max(machine.workers, 1), max(len(queue), 1))
        tracker = Tracker(planned, growth.existing, growth.diverged, names, at_a_time, time.time())
        status = StatusWriter(growth.zoo.path, tracker, remaining.seconds)
        bars = display(planned, growth.existing, remaining.seconds, enabled=progress, names=names)
        listeners: list[Listener] = [growth.note, remaining, stack.enter_context(status)]
        listeners.append(stack.enter_context(bars))
        if trace:
            timeline = Timeline(growth.zoo.path / "timeline.json", names)
            stack.callback(timeline.write)  # however growing ends
            listeners.append(timeline)
        if listener:
            listeners.append(listener)
        check_interrupt = stack.enter_context(interrupts())

        def emit(event: Event) -> None:
            check_interrupt()
            time_limit.check()
            for listen in listeners:
                listen(event)

        def notify(text: str) -> None:
            emit(Notice(text))

        training_logs = TrainingLogs(loggers, planned, growth.zoo, growth.existing, notify)
        listeners.append(stack.enter_context(training_logs))

        for text in unscored(growth.zoo, planned):
            notify(text)
        for stage, changes in check.adaptations.items():
            if changes:
                notify(f"{stage}: its parents' weights are adapted: {', '.join(changes)}")
        with trainer.calibration(notify) as calibration:
            tuner = AutoTuner(planned, machine, request, calibration, notify)
            tuner.choose(queue.waiting())  # all of them now, while nothing else runs
            remaining.expect(tuner.epoch_seconds)
        if len(queue):
            with trainer.pool(queue, growth.zoo, options, tuner) as pool:
                Scheduler(queue, pool, growth.zoo, emit, tuner.mode).run()
        for model in queue.waiting():  # which can no longer start
            role, other = next(iter(queue.missing(model).items()))
            use = "to start from" if role == "parent" else "to learn from"
            cause = f"its {role} {other} has no weights {use}"
            emit(Ended(model.id, "skipped", cause))
        for text in changed_bits(growth.zoo, growth.grown, growth.existing):
            notify(text)
        growth.zoo.models()  # leaves the index up to date
    growth.time_is_up = time_limit.is_up
    return growth


def _engine(
    name: str,
    numerics: Numerics,
    address: str | None,
    cpus: int | None,
    gpus: float | None,
) -> AbstractContextManager[Engine]:
    if name == "ray":
        from vitarium.engine.pools.ray import on_ray

        cpus = numerics.threads or 1 if cpus is None else cpus
        return on_ray(address, numerics.workers, numerics.device, cpus, gpus)
    if name != "local":
        raise InvalidInput(f"unknown engine '{name}'; known: local, ray")
    only_ray = {"address": address, "cpus_per_model": cpus, "gpus_per_model": gpus}
    for option, value in only_ray.items():
        if value is not None:
            raise InvalidInput(f"{parameter(option, value)} needs {parameter('engine', 'ray')}")
    return nullcontext(LocalEngine(numerics.device, numerics.workers, numerics.threads))


def _queue(growth: Growth) -> Queue:
    """The models that are left to train; notes those that exist."""
    relevant = {id for model in growth.plan.models for id in (model.id, model.parent)}
    states = {id: growth.zoo.folder(id).status for id in growth.zoo.ids() if id in relevant}
    status = {id: state for id, state in states.items() if id in growth.plan}
    growth.existing.extend(id for id, state in status.items() if state != "training")
    for id, state in status.items():
        if state == "diverged":
            growth.diverged[id] = (growth.zoo.folder(id).result() or {}).get("message", "")
    done = [id for id, state in states.items() if state == "finished"]
    return Queue(growth.plan, done, growth.diverged)
