"""Models as an importer finds them: where they come from, and how their weights are read."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from vitarium.core.registry import Section


@dataclass(frozen=True)
class ForeignEpoch:
    """A state of a foreign model; `load` reads its weights, None where they were not kept.

    `load` gives tensors under the names of `ForeignModel.architecture` (timm's), or under the
    file's own where there is none, and raises UntrustedFile or CorruptFile.
    """

    number: int
    metrics: Mapping[str, float]
    load: Callable[[], dict[str, Tensor]] | None


@dataclass(frozen=True)
class ForeignModel:
    """A model of someone else's folder. An importer yields parents before their children."""

    name: str
    """What it is called there; unique inside of what is imported."""
    stage: str
    epochs: Sequence[ForeignEpoch]
    """In order; a model without any weights is not imported."""
    num_outputs: int
    parent: str | None = None
    """The `name` of the model it started from."""
    parent_epoch: int | None = None
    """None: after the parent's last kept epoch."""
    architecture: Section | None = None
    """None: nothing here builds it; its tensors are kept all the same."""
    head: Section | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Generating factors by dotted name: ours (`optimizer.lr`) where they mean the same."""
    classes: tuple[str, ...] = ()
    finished: bool = True
    where: str = ""
    """Where it is described, for messages: "models.csv, row 3"."""
    notes: tuple[str, ...] = ()
    """What the importer wants to be known: what was missing or broken, and what became of it."""

    @property
    def named(self) -> str:
        """Its name, and where it is described, for messages."""
        return f"{self.name} ({self.where})" if self.where else self.name
