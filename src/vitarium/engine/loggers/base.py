"""The contract of loggers: what writes the training of each model as a run of another tool."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from vitarium.core.config import Config
from vitarium.core.filenames import file_name
from vitarium.core.registry import contract, register

RunStatus = Literal["finished", "diverged", "failed", "interrupted"]
"""How the training of a model ended, or was left."""


class LoggerConfig(Config):
    """Settings that every logger has."""

    folder: str = ""
    """Where it writes; "": `logs/` in the zoo, and there a folder of the logger's name."""


@dataclass(frozen=True)
class Run:
    """A model whose training is logged."""

    id: str
    stage: str
    parent: str | None
    blueprint: str
    """The name of the blueprint that asks for it."""
    factors: Mapping[str, Any]
    """Its generating factors by dotted name, as JSON values on one level."""

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """The factors, with the stage and the parent."""
        return {"stage": self.stage, "parent": self.parent or "", **self.factors}

    @property
    def path(self) -> Path:
        """A folder for it, relative to a logger's."""
        return Path(file_name(self.stage), self.id)


class RunLog(ABC):
    """The log of one run. Until `log` or `close` is called nothing is written.

    last_epoch: the last that is in the log, from whichever process; -1: none. An earlier one where
        the log of a process that was killed is written anew.
    """

    last_epoch: int = -1

    @abstractmethod
    def log(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Add an epoch, the next after `last_epoch`. Metrics may be infinite or NaN, and another
        epoch may have others. Raises whatever the tool does."""

    def close(self, status: RunStatus) -> None:
        """Nothing is logged any more by this process; another may go on with the run."""
        return


Open = TypeVar("Open", bound=Callable[[Any, Run, Path], RunLog])


@contract
def logger(
    name: str,
    *,
    title: str,
    extra: str = "",
    paper: str = "",
    tiny: Mapping[str, Any] = {},
) -> Callable[[Open], Open]:
    """Register a function `(config, run, folder) -> RunLog` that opens the log of a model's run.

    It is called in the process that grows, on whatever machines models are trained, and on a
    thread of the logger's own; several runs are open at a time. It finds what an earlier process
    logged of the run, so that the same run goes on. The config is a LoggerConfig. The folder may
    not be there yet. Whatever it raises is reported, and training goes on without the logger.

    Args:
        title: what the tool is called, e.g. "TensorBoard".
        extra: of vitarium, that brings the tool's library; the function imports it where needed.
        paper: of the tool, where there is one.
        tiny: settings for the contract test, `vitarium.testing.check_logger(name)`.
    """
    return register("logger", name, title=title, extra=extra, paper=paper, tiny=tiny)
