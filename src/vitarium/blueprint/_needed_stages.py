"""Which stages' models have to be known before those of a stage."""

from contextlib import suppress
from typing import Any

from vitarium.blueprint.stage import SCRATCH, Stage
from vitarium.blueprint.teacher_stage import teacher_stage
from vitarium.core.config import InvalidConfig


def needed_stages(stage: Stage) -> set[str]:
    """Names that a stage has of others: of its models' parents, and of their teachers."""
    starts: list[Any] = []
    with suppress(KeyError):  # noted with the stage's models
        for settings, _ in stage.points():
            starts.append(settings.get("start", SCRATCH))
            with suppress(InvalidConfig):  # likewise
                starts.append(teacher_stage(settings))
    names = [start.get("stage") if isinstance(start, dict) else start for start in starts]
    return {name for name in names if isinstance(name, str) and name != SCRATCH}
