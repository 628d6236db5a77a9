"""What growing a zoo came to."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vitarium.blueprint import Plan
from vitarium.engine.events import Ended, Event
from vitarium.zoo import Zoo

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class Growth:
    """What became of a plan.

    zoo: the zoo, with every model that finished or diverged.
    grown: ids that were trained now; existing: ids that were there before.
    diverged, failed, skipped: id -> why.
    time_is_up: whether `max_minutes` ended it; models of the plan may be missing, or half trained.
    """

    zoo: Zoo
    plan: Plan
    grown: list[str] = field(default_factory=list)
    existing: list[str] = field(default_factory=list)
    diverged: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    time_is_up: bool = False

    def __repr__(self) -> str:
        counts = self.to_frame()["outcome"].value_counts().items()
        outcomes = ", ".join(f"{count} {outcome or 'not yet trained'}" for outcome, count in counts)
        causes = {**self.diverged, **self.failed, **self.skipped}.items()
        lines = [f"{id}: {why}" for id, why in causes]
        return "\n".join([f"Growth of {self.zoo!r}: {outcomes}", *lines])

    @property
    def complete(self) -> bool:
        """Whether every model of the plan is in the zoo; a diverged model counts as grown."""
        return not (self.failed or self.skipped or self.time_is_up)

    def to_frame(self) -> "pd.DataFrame":
        """A row per model of the plan: model, stage, parent, outcome (grown, existing, diverged,
        failed, skipped; "": not yet any) and reason."""
        import pandas as pd

        outcomes = dict.fromkeys(self.grown, ("grown", ""))
        outcomes |= dict.fromkeys(self.existing, ("existing", ""))
        for outcome in ("diverged", "failed", "skipped"):
            outcomes |= {id: (outcome, why) for id, why in getattr(self, outcome).items()}
        rows = [(m.id, m.stage, m.parent, *outcomes.get(m.id, ("", ""))) for m in self.plan.models]
        return pd.DataFrame(rows, columns=["model", "stage", "parent", "outcome", "reason"])

    def note(self, event: Event) -> None:
        """Count what became of a model."""
        match event:
            case Ended(model, "finished"):
                self.grown.append(model)
            case Ended(model, status, message):
                causes: dict[str, str] = getattr(self, status)
                causes[model] = message
