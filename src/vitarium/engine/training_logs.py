"""Training as it happens, written for other tools by loggers."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
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
    for then, is logged first. A logger that fails is reported once and left out from then on. A
    context that ends with closing all logs.

    Args:
        existing: models that are in the zoo, trained to their end.
        notify: is called with a line about a logger that fails.
    """

    def __init__(
        self,
        loggers: Iterable[Section],
        plan: Plan,
        zoo: Zoo,
        existing: Iterable[str],
        notify: Callable[[str], None],
    ) -> None:
        self._plan, self._zoo, self._existing, self._notify = plan, zoo, existing, notify
        self._loggers = [_Logger(each, _folder(each, zoo.path)) for each in loggers]

    def __enter__(self) -> Self:
        for logger in self._loggers:
            for model in list(self._existing):
                self._attempt(logger, self._complete, model)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for logger in self._loggers:
            for model in list(logger.logs):
                self._attempt(logger, self._close, model, "interrupted")

    def __call__(self, event: Event) -> None:
        for logger in self._loggers:
            match event:
                case Started(model, _):
                    self._attempt(logger, self._catch_up, model)
                case EpochEnded():
                    self._attempt(logger, self._log, event.model, event.epoch, event.metrics)
                case Ended(model, status, _) if status != "skipped":
                    self._attempt(logger, self._close, model, status)

    def _attempt(self, logger: "_Logger", work: Callable[..., None], *arguments: Any) -> None:
        if logger.is_broken:
            return
        try:
            work(logger, *arguments)
        except Exception as error:  # a tool may raise anything, and training is worth more
            logger.is_broken = True
            for log in logger.logs.values():
                with suppress(Exception):
                    log.close("interrupted")
            cause = shortened(printable(f"{type(error).__name__}: {error}"), _MAX_CAUSE)
            self._notify(
                f"the logger '{logger.section.name}' failed and is left out from here on, while "
                f"training goes on: {cause}"
            )

    def _complete(self, logger: "_Logger", model: str) -> None:
        """Log what is missing of a model that is trained to its end."""
        folder = self._zoo.folder(model)
        epochs = folder.epochs()
        log = logger.open(self._run(model))
        if epochs and epochs[-1].number > log.last_epoch:
            self._catch_up(logger, model)
            self._close(logger, model, "diverged" if folder.status == "diverged" else "finished")
        else:
            del logger.logs[model]

    def _catch_up(self, logger: "_Logger", model: str) -> None:
        log, folder = logger.open(self._run(model)), self._zoo.folder(model)
        for epoch in folder.epochs() if folder.exists else ():
            if epoch.number > log.last_epoch:
                self._log(logger, model, epoch.number, epoch.metrics)

    def _log(self, logger: "_Logger", model: str, epoch: int, metrics: Mapping[str, float]) -> None:
        log = logger.open(self._run(model))
        if epoch > log.last_epoch:
            log.log(epoch, metrics)
            log.last_epoch = epoch

    def _close(self, logger: "_Logger", model: str, status: RunStatus) -> None:
        if log := logger.logs.pop(model, None):
            log.close(status)

    def _run(self, model: str) -> Run:
        spec = self._plan[model]
        return Run(model, spec.stage, spec.parent, self._plan.name, spec.described())


@dataclass
class _Logger:
    """A logger with the logs that it has open, by model."""

    section: Section
    folder: Path
    logs: dict[str, RunLog] = field(default_factory=dict)
    is_broken: bool = False

    def open(self, run: Run) -> RunLog:
        if run.id not in self.logs:
            self.logs[run.id] = self.section(run, self.folder)
        return self.logs[run.id]


def _folder(logger: Section, zoo: Path) -> Path:
    """Raises LeadsOutside for one in the zoo that a link leads out of it."""
    if logger.config.folder:
        return user_path(logger.config.folder)
    folder = zoo / FOLDER / logger.name
    files.check_inside(folder, zoo)
    return folder
