"""Events of growing a zoo; displays and logs listen to them."""

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


@dataclass(frozen=True)
class Halved:
    """Memory ran out, as `cause` says: from now on there are at most `models` at a time."""

    models: int
    cause: str


@dataclass(frozen=True)
class Spent:
    """A worker was busy with a model from `start` to `end` (seconds since 1970).

    `what` is set-up, train, score or write; a stack is named by its first model.
    """

    model: str
    worker: str
    what: str
    start: float
    end: float
    epoch: int | None = None


@dataclass(frozen=True)
class Notice:
    """Something that the user may want to know, in a line: what was measured and chosen."""

    text: str


Event = Started | Stepped | EpochEnded | Ended | Retried | Halved | Spent | Notice
Listener = Callable[[Event], None]
