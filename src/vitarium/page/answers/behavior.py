"""The shapes of what the page is told of what a model does with images."""

from typing_extensions import TypedDict


class ClassAccuracy(TypedDict):
    """None where no test image is of the class."""

    name: str
    accuracy: float | None
    images: int


class ConfidenceBin(TypedDict):
    """Mean confidence and accuracy of the images in a bin of confidence."""

    confidence: float
    accuracy: float
    images: int


class Error(TypedDict):
    """A test image (PNG as a data address) that a model gets wrong."""

    image: str
    label: str
    predicted: str
    confidence: float


class Behavior(TypedDict):
    """How a model does on its test images."""

    data: str
    images: int
    accuracy: float
    classes: list[ClassAccuracy]
    calibration: list[ConfidenceBin]
    errors: list[Error]


class AttentionMap(TypedDict):
    """Of a block: uint8 [images, heads, rows, columns] as base64."""

    block: str
    heads: int
    values: str


class Attention(TypedDict):
    """Where a model looks on some of its test images; each map is divided by its largest entry."""

    images: list[str]
    rows: int
    columns: int
    maps: list[AttentionMap]
    rollout: str
    """uint8 [images, rows, columns] as base64."""
