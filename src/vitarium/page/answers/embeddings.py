"""Where models lie on the map, and which are near each other."""

from typing_extensions import TypedDict


class EmbeddingSource(TypedDict):
    """What positions on the map can be taken from: `what` says how in a sentence."""

    name: str
    title: str
    what: str


class EmbeddingMethod(TypedDict):
    """How vectors are brought into a plane."""

    name: str
    title: str


class EmbeddingChoices(TypedDict):
    """What the map offers beside columns."""

    sources: list[EmbeddingSource]
    methods: list[EmbeddingMethod]
    trajectories: bool
    """Whether all kept epochs of a model can be shown."""


class LeftOut(TypedDict):
    """How many models have no point, and why."""

    reason: str
    models: int


class Embedding(TypedDict):
    """Checkpoints as points of a plane: column by column, in the order of models and epochs."""

    method: str
    ids: list[str]
    models: list[int]
    """Of each point, the number of its model in `ids`."""
    epochs: list[int]
    x: list[float]
    y: list[float]
    explained: list[float] | None
    """Of a PCA, the share of the variance on each axis."""
    left_out: list[LeftOut]


class Remaining(TypedDict):
    """An answer that is being computed: of `total` models so many remain."""

    remaining: int
    total: int


class Relative(TypedDict):
    """A model, and how far its weights are from those of the one that was asked for."""

    id: str
    distance: float


class Relatives(TypedDict):
    """The models with the nearest weights, nearest first."""

    nearest: list[Relative]
