"""The shapes of what the page is told of studies, as in `answers`."""

from typing import Literal

from typing_extensions import TypedDict


class StudyPage(TypedDict):
    """A page that lies at `studies/NAME.html`; `study` is "" where it does not say of which."""

    name: str
    title: str
    study: str
    date: str
    """When it was written, in UTC: `2026-03-01T12:00:00+00:00`."""


class StoredLineage(TypedDict):
    """A recovered lineage that `lineages/NAME.json` tells of."""

    name: str
    date: str


class Studies(TypedDict):
    """What the studies of a zoo wrote: pages, the latest first, and recovered lineages."""

    pages: list[StudyPage]
    lineages: list[StoredLineage]


class RecoveredParent(TypedDict):
    """A parent, or another candidate ("": none, the model is a root), and how probable it is."""

    model: str
    probability: float | None


class RecoveredModel(TypedDict):
    """A model, or `ID@EPOCH`, with the parents that a study recovered from its weights."""

    model: str
    parents: list[RecoveredParent]
    """None: it was recovered as a root."""
    root: float | None
    """Probability that it is one."""
    others: list[RecoveredParent]
    """The most probable of the other candidates."""
    true_parents: list[str] | None
    """None where nobody knows."""
    status: Literal["right", "tied", "wrong", "unknown"]
    """tied: right but for models whose weights do not distinguish them."""


class RecoveredLineage(TypedDict):
    """What a study of lineage recovered; see `vitarium.lineage.files.forests` for its file."""

    method: str
    date: str
    models: list[RecoveredModel]
