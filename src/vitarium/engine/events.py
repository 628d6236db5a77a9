"""What an engine tells while it grows a zoo; displays and logs listen."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Started:
    """A worker begins, or goes on with, a model."""

    model: str


@dataclass(frozen=True)
class Stepped:
    """Step `step` of `steps` of an epoch (from 1) is done; sent a few times a second at most."""

    model: str
    epoch: int
    step: int
    steps: int


@dataclass(frozen=True)
class EpochEnded:
    """An epoch (0: the initial state) is on disk."""

    model: str
    epoch: int
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Ended:
    """The model is done with: it is in the zoo (finished, diverged) or it is not."""

    model: str
    status: Literal["finished", "diverged", "failed", "skipped"]
    message: str = ""


@dataclass(frozen=True)
class Retried:
    """The model's worker died of `cause`; it goes on from its last epoch in another."""

    model: str
    cause: str


Event = Started | Stepped | EpochEnded | Ended | Retried
Listener = Callable[[Event], None]
