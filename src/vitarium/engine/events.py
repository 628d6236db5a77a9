"""Events of growing a zoo; displays and logs listen to them."""

from collections.abc import Callable
from typing import Literal, NamedTuple

from vitarium.training import EpochEnded as EpochEnded
from vitarium.training import Remarked as Remarked
from vitarium.training import Spent as Spent
from vitarium.training import Stepped as Stepped


class Started(NamedTuple):
    """A worker, by its number from 0, begins, or goes on with, a model."""

    model: str
    worker: int = 0


class Ended(NamedTuple):
    """The model is done with: it is in the zoo (finished, diverged) or it is not."""

    model: str
    status: Literal["finished", "diverged", "failed", "skipped"]
    message: str = ""


class Retried(NamedTuple):
    """The model's worker died of `cause`; it goes on from its last epoch in another."""

    model: str
    cause: str


class Halved(NamedTuple):
    """Memory ran out, as `cause` says: from now on there are at most `models` at a time."""

    models: int
    cause: str


class Notice(NamedTuple):
    """Something that the user may want to know, in a line: what was measured and chosen."""

    text: str


Event = Started | Stepped | EpochEnded | Ended | Retried | Halved | Spent | Remarked | Notice
"""Stepped comes a few times a second at most."""
Listener = Callable[[Event], None]
