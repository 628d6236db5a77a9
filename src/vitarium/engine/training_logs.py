"""Training as it happens, written for other tools by loggers."""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self

from vitarium.blueprint import Plan
from vitarium.core import files
from vitarium.core.config import InvalidConfig
from vitarium.core.errors import InvalidInput
from vitarium.core.extras import require
from vitarium.core.filenames import user_path
from vitarium.core.parameters import parameter
from vitarium.core.printable import brief, printable, shortened
from vitarium.core.registry import Section, section
from vitarium.engine.events import Ended, EpochEnded, Event, Started
from vitarium.engine.loggers.base import Run, RunLog, RunStatus
from vitarium.zoo import Zoo

FOLDER = "logs"
"""Of a zoo; a logger writes into the folder of its name there, unless it is told otherwise."""
_MAX_CAUSE = 300
_PATIENCE_SECONDS = 2.0


def chosen_loggers(logs: Sequence[str | Mapping[str, Any]]) -> list[Section]:
    """Read names of loggers, or mappings with a name and settings.

    Raises InvalidInput for one that there is not, is named twice, or lacks a library.
    """
    if isinstance(logs, str | Mapping):
        raise InvalidInput(
            f"{brief(logs)} is no list of loggers; write {parameter('logs', [logs])}"
        )
    loggers = []
    for log in logs:
        try:
            loggers.append(section("logger", log))
        except InvalidConfig as error:
            name = log.get("name") if isinstance(log, Mapping) else log
            raise InvalidConfig(error.problems, f"the logger {brief(name)}:") from None
    names = [logger.name for logger in loggers]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InvalidInput(f"the logger '{twice[0]}' is named twice")
    for logger in loggers:
        if extra := logger.facts["extra"]:
            require(extra, f"the logger '{logger.name}'")
    return loggers


class TrainingLogs:
    """A listener that hands epochs to loggers, each of them once, however often a model is resumed.

    What the zoo has and a log has not, since a process died in between or the logger was not asked
    for then, is logged first. Each logger has a thread, so that a slow one holds nothing up. One
    that fails is reported once and left out from then on. A context that ends with closing all
    logs.

    Args:
        existing: models that are in the zoo, trained to their end.
        notify: is called with a line about a logger that fails, or is slow at the end.
    """

    def __init__(
        self,
        loggers: Iterable[Section],
        plan: Plan,
        zoo: Zoo,
        existing: Iterable[str],
        notify: Callable[[str], None],
    ) -> None:
        self._existing, self._notify = existing, notify
        self._writers = [_Writer(each, _folder(each, zoo.path), plan, zoo) for each in loggers]

    def __enter__(self) -> Self:
        for writer in self._writers:
            for model in self._existing:
                writer.queue.put(partial(writer.complete, model))
            writer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for writer in self._writers:
            writer.queue.put(None)
        for writer in self._writers:
            writer.join(_PATIENCE_SECONDS)
            if writer.is_alive():
                self._notify(
                    f"the logger '{writer.section.name}' is still writing; stopped by Ctrl-C, it "
                    "adds the rest when this zoo is grown the next time"
                )
                writer.join()
            self._report(writer)

    def __call__(self, event: Event) -> None:
        for writer in self._writers:
            self._report(writer)
            match event:
                case Started(model, _):
                    writer.queue.put(partial(writer.catch_up, model))
                case EpochEnded():
                    writer.queue.put(partial(writer.log, event.model, event.epoch, event.metrics))
                case Ended(model, status, _) if status != "skipped":
                    writer.queue.put(partial(writer.close, model, status))

    def _report(self, writer: "_Writer") -> None:
        if writer.failure and not writer.is_reported:
            writer.is_reported = True
            self._notify(
                f"the logger '{writer.section.name}' failed and is left out from here on, while "
                f"training goes on: {writer.failure}"
            )


class _Writer(threading.Thread):
    """The thread of a logger, with the logs that it has open, by model.

    queue: what there is to do, in order; None ends it.
    """

    def __init__(self, section: Section, folder: Path, plan: Plan, zoo: Zoo) -> None:
        super().__init__(name=f"logger-{section.name}", daemon=True)
        self.section, self._folder, self._plan, self._zoo = section, folder, plan, zoo
        self.queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self.failure, self.is_reported = "", False
        self._logs: dict[str, RunLog] = {}

    def run(self) -> None:
        for work in iter(self.queue.get, None):
            if not self.failure:
                self._attempt(work)
        for model in list(self._logs):
            self._attempt(partial(self.close, model, "interrupted"))

    def _attempt(self, work: Callable[[], None]) -> None:
        try:
            work()
        except (Exception, SystemExit) as error:  # a tool may raise anything
            for log in self._logs.values():
                with suppress(Exception):
                    log.close("interrupted")
            self._logs = {}
            self.failure = shortened(printable(f"{type(error).__name__}: {error}"), _MAX_CAUSE)

    def complete(self, model: str) -> None:
        """Log what is missing of a model that is trained to its end."""
        folder = self._zoo.folder(model)
        epochs = folder.epochs()
        if epochs and epochs[-1].number > self._log(model).last_epoch:
            self.catch_up(model)
            self.close(model, "diverged" if folder.status == "diverged" else "finished")
        self._logs.pop(model, None)

    def catch_up(self, model: str) -> None:
        """Log what is missing of a model, of which there may be nothing yet."""
        folder = self._zoo.folder(model)
        for epoch in folder.epochs() if folder.exists else ():
            self.log(model, epoch.number, epoch.metrics)

    def log(self, model: str, epoch: int, metrics: Mapping[str, float]) -> None:
        """Log an epoch, unless it was logged before."""
        log = self._log(model)
        if epoch > log.last_epoch:
            log.log(epoch, metrics)
            log.last_epoch = epoch

    def close(self, model: str, status: RunStatus) -> None:
        """Close the log of a model, if it is open."""
        if log := self._logs.pop(model, None):
            log.close(status)

    def _log(self, model: str) -> RunLog:
        if model not in self._logs:
            spec = self._plan[model]
            run = Run(model, spec.stage, spec.parent, self._plan.name, spec.described())
            self._logs[model] = self.section(run, self._folder)
        return self._logs[model]


def _folder(logger: Section, zoo: Path) -> Path:
    """Raises LeadsOutside for one in the zoo that a link leads out of it."""
    if logger.config.folder:
        return user_path(logger.config.folder)
    folder = zoo / FOLDER / logger.name
    files.check_inside(folder, zoo)
    return folder
