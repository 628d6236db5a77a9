"""How far a long task is: one protocol for everything that takes long, whoever shows it."""

from typing import Protocol


class Progress(Protocol):
    """Shows or records how far something is."""

    def step(self, task: str, done: int, total: int) -> None:
        """`done` of `total` parts of `task` are done; a new `task` begins a new count."""


class Silent:
    """Shows nothing."""

    def step(self, task: str, done: int, total: int) -> None:
        pass


SILENT = Silent()
