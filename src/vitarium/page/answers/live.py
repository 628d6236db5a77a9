"""The shapes of what the page is told of a zoo that grows."""

from typing import Literal

from typing_extensions import TypedDict

from vitarium.zoo.growth_status import GrowthStatus, State

GrowthState = State | Literal["silent", "none", "unreadable"]
"""As `growth.json` says it; interrupted: also where its process was killed; silent: it grows, but
has not been heard of for long; none: there is no such file."""


class TrainingCurve(TypedDict):
    """Losses and accuracies by epoch, [epochs] each."""

    epochs: list[int]
    metrics: dict[str, list[float | None]]


class Live(TypedDict):
    """How far a zoo that grows is, or how the last growing ended."""

    state: GrowthState
    growth: GrowthStatus | None
    elapsed: float | None
    """Seconds since it began, or that it took."""
    quiet: float
    """Seconds since the growing process was last heard of."""
    curves: dict[str, TrainingCurve]
    """Of the models in training, by id."""
    folder: str
    """Where the zoo lies."""
