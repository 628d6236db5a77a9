"""The shapes of what the page is told, as it gets them in JSON.

The server documents its answers with these (`api/openapi.json`), and tests hold both against them.
"""

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from vitarium.page.live_answers import GrowthState


class Refusal(TypedDict):
    """Why there is no answer."""

    error: str


class Refused(TypedDict):
    """Why a model, or a pair, has no such answer, though the request was fine."""

    refused: str


class Summary(TypedDict):
    """A zoo as such; what is not required, the server alone says."""

    name: str
    path: str
    """Of the zoo, as commands and Python write it."""
    models: int
    version: str
    can_write: NotRequired[bool]
    embeddings: NotRequired[bool]
    """Whether there are positions by weights, see `EmbeddingChoices`."""
    behavior: NotRequired[bool]
    """Whether there is what models do with images, see `Behavior` and `Attention`."""
    token: NotRequired[str]
    """For changes, in the header `x-vitarium-token`."""
    stamp: NotRequired[str]
    """Another text once anything of the zoo has changed."""
    growth: NotRequired[GrowthState]


Group = Literal["fact", "factor", "score", "metric", "training", "measure"]
"""Of columns: where their values are from."""


class ColumnValues(TypedDict):
    """Of numbers: `values`; of texts: `codes` into `levels`, -1 where there is no value."""

    type: Literal["number", "text"]
    values: NotRequired[list[float | None]]
    levels: NotRequired[list[str]]
    codes: NotRequired[list[int]]


class Column(ColumnValues):
    """Of the table of models: `name` as SQL knows it, `label` as it is shown."""

    name: str
    label: str
    group: Group


class ModelsTable(TypedDict):
    """All models, column by column."""

    ids: list[str]
    columns: list[Column]
    shown: list[str]
    constants: dict[str, Any]


class CheckpointName(TypedDict):
    """A model after an epoch."""

    model: str
    epoch: int


class MeasuredNumber(TypedDict):
    """A number that was measured of a model by itself."""

    measure: str
    part: str
    epoch: int
    value: float | None
    unit: str
    data: str
    split: str
    settings: str


class ModelPage(TypedDict):
    """All that is known of a model."""

    id: str
    stage: str
    status: Literal["training", "finished", "diverged"]
    message: str
    parent: CheckpointName | None
    children: list[str]
    siblings: list[str]
    ingredients: list[CheckpointName]
    operator: str | None
    tags: list[str]
    note: str
    factors: dict[str, Any]
    differing: list[str]
    """Factors in which it differs from its siblings."""
    trained: dict[str, Any]
    """Software, device and precision it was trained with."""
    classes: list[str]
    outputs: int
    epochs: list[dict[str, Any]]
    """Of each, `epoch`, whether its weights are `kept`, and metrics by their names."""
    measured: list[MeasuredNumber]
    commands: list[list[str]]
    """Lines of arguments, not quoted for any shell."""
    python: list[str]
    """Lines that load it."""


class Reproduction(TypedDict):
    """How a model can be made again."""

    blueprint: str | None
    """The text of `file`, which grows it with all its parents; None: it was not trained here."""
    file: str
    commands: list[list[str]]
    """Lines of arguments, not quoted for any shell."""
    python: list[str]
    """Lines that do the same."""
    notes: list[str]
    """Sentences: what that needs, and what is not known."""


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


class Epochs(TypedDict):
    """Metrics of all epochs, in the order of models and epochs; `models` are numbers into `ids`."""

    ids: list[str]
    models: list[int]
    epochs: list[int]
    metrics: dict[str, list[float | None]]


class Matches(TypedDict):
    """The ids of models that fulfill a condition, or that were changed."""

    ids: list[str]
