"""The shapes of what the page is told of models side by side, as it gets them in JSON."""

from typing_extensions import TypedDict


class Matrix(TypedDict):
    """A number for every pair of models, after their last kept epochs."""

    models: list[str]
    values: list[list[float | None]]
    """[models, models]; None where a pair cannot be compared."""
    order: list[int]
    """The models' numbers in an order in which those that are alike are neighbors."""
    images: dict[str, int]
    """Of each data set, how many test images were looked at."""
    reasons: dict[str, str]
    """By model, why it has no numbers."""


class Barrier(TypedDict):
    """Loss and accuracy along the straight line between two models' weights, [points]."""

    positions: list[float]
    """From 0, the first model, to 1, the second."""
    loss: list[float]
    """Mean cross-entropy, nats."""
    accuracy: list[float]
    barrier: float
    """The largest rise of the loss above the line between both ends' losses, nats."""
    barrier_at: float
    """The position where that is."""
    accuracy_barrier: float
    """The largest fall of the accuracy below the line between both ends'."""
    data: str
    images: int
    """Test images that were looked at."""
