"""A zoo as such, its table of models, and the page of each."""

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from vitarium.page.answers.live import GrowthState


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


class Epochs(TypedDict):
    """Metrics of all epochs, in the order of models and epochs; `models` are numbers into `ids`."""

    ids: list[str]
    models: list[int]
    epochs: list[int]
    metrics: dict[str, list[float | None]]


class Matches(TypedDict):
    """The ids of models that fulfill a condition, or that were changed."""

    ids: list[str]
