"""The shapes of what the page is told of models side by side, as it gets them in JSON."""

from typing_extensions import TypedDict

from vitarium.page.answers.models import Refused


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


class Disagreement(TypedDict):
    """A test image (PNG as a data address) of which two models say different classes."""

    image: str
    label: str
    first: str
    second: str


class PairPredictions(TypedDict):
    """How often two models agree; all but `images` are shares of them."""

    data: str
    images: int
    agreement: float
    both_right: float
    first_right: float
    second_right: float
    disagreements: list[Disagreement]


class Similarity(TypedDict):
    """CKA of every block with every block [rows, columns]."""

    rows: list[str]
    columns: list[str]
    values: list[list[float]]
    images: int


class PartDistance(TypedDict):
    """L2 distance of a part's weights, divided by the first model's norm."""

    part: str
    distance: float | None


class Pair(TypedDict):
    """How two models differ."""

    predictions: PairPredictions | Refused
    similarity: Similarity | Refused
    distances: list[PartDistance] | Refused
