"""Grow: from a blueprint to a zoo."""

from dataclasses import dataclass, field
from pathlib import Path

from vitarium.blueprint import Blueprint, Plan, plan
from vitarium.engine.display import display
from vitarium.engine.events import Ended, Event, Listener
from vitarium.engine.local import run_here, run_workers
from vitarium.engine.machine import Machine
from vitarium.engine.queue import Queue
from vitarium.store import Zoo
from vitarium.training import TrainOptions


@dataclass(frozen=True)
class Growth:
    """What became of a plan.

    zoo: the zoo, with every model that finished or diverged.
    grown: ids that were trained now; already: ids that were there before.
    diverged, failed, skipped: id -> why.
    """

    zoo: Zoo
    plan: Plan
    grown: list[str] = field(default_factory=list)
    already: list[str] = field(default_factory=list)
    diverged: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every model of the plan is in the zoo; a diverged model counts as grown."""
        return not self.failed and not self.skipped

    def note(self, event: Event) -> None:
        if isinstance(event, Ended):
            match event.status:
                case "finished":
                    self.grown.append(event.model)
                case "diverged":
                    self.diverged[event.model] = event.message
                case "failed":
                    self.failed[event.model] = event.message
                case "skipped":
                    self.skipped[event.model] = event.message


def grow(
    blueprint: Blueprint | str | Path,
    zoo: str | Path,
    *,
    workers: int | None = None,
    device: str = "auto",
    data_dir: str | Path | None = None,
    loader_workers: int = 0,
    deterministic: bool = True,
    progress: bool = True,
    listener: Listener | None = None,
) -> Growth:
    """Train every model of a blueprint that the zoo does not have yet.

    Stopped at any moment and called again, it goes on after each model's last finished epoch and
    gives the same weights, bit for bit, as if it had not been stopped.

    Args:
        blueprint: a Blueprint, a YAML file, or the name of one that vitarium ships.
        zoo: the zoo's folder; made if it is not there.
        workers: models trained at a time, each in a process of its own; 0: in this process.
            Default: one per core with one thread each, or one per GPU.
        device: "auto" (a GPU where there is one), "cpu", "cuda" or "cuda:1".
        data_dir: looked into first for data sets.
        loader_workers: processes per model that decode and augment images.
        deterministic: the same bits from the same spec; False lets a GPU use faster kernels.
        progress: show progress on the terminal.
        listener: is told every event beside.

    Raises InvalidConfig for a blueprint that is not valid, before anything is written. A model
    that fails does not stop the others: see Growth.
    """
    if not isinstance(blueprint, Blueprint):
        blueprint = Blueprint.load(blueprint)
    planned = plan(blueprint)
    machine = Machine.find(device, workers)
    place = Zoo.create(zoo)
    place.add_blueprint(blueprint)
    growth = Growth(place, planned)
    options = TrainOptions(
        device=machine.devices[0],
        data_dir=Path(data_dir) if data_dir else None,
        loader_workers=loader_workers,
        deterministic=deterministic,
    )
    queue = _queue(growth)
    with display(planned, growth.already, enabled=progress) as shown:

        def tell(event: Event) -> None:
            for listen in (growth.note, shown, listener):
                if listen:
                    listen(event)

        if machine.workers == 0:
            run_here(queue, place, options, tell)
        elif len(queue):
            run_workers(
                queue,
                place,
                options,
                tell,
                workers=min(machine.workers, len(queue)),
                threads=machine.threads,
                devices=machine.devices,
            )
        for orphan in queue.orphans():
            tell(
                Ended(
                    orphan.id, "skipped", f"its parent {orphan.parent} has no weights to start from"
                )
            )
    place.models()  # leaves the index up to date
    return growth


def _queue(growth: Growth) -> Queue:
    """What is left to do; notes what is there already."""
    status = {id: growth.zoo.folder(id).status for id in growth.zoo.ids() if id in growth.plan}
    growth.already.extend(id for id, state in status.items() if state != "training")
    for id, state in status.items():
        if state == "diverged":
            growth.diverged[id] = (growth.zoo.folder(id).result() or {}).get("message", "")
    done = [id for id, state in status.items() if state == "finished"]
    return Queue(growth.plan, done, growth.diverged)
