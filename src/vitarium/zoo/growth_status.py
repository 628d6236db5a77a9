"""`growth.json`: how far the growing of a zoo is, or how the last one ended, for who looks on.

The process that grows writes it about once a second. It is part of nothing else, and may be
deleted.
"""

import stat
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vitarium.core import files
from vitarium.core.errors import CorruptFile
from vitarium.core.file_faults import reading

FILE = "growth.json"
HEARTBEAT_SECONDS = 5.0
"""So often at least it is written while a zoo grows, whether or not anything has happened."""
MAX_LISTED = 64
"""Models in training that are listed; more are only counted."""
_MAX_BYTES = 1 << 20
_ID = r"^[0-9a-f]{12}$"

State = Literal["growing", "finished", "incomplete", "interrupted", "broken"]
"""incomplete: it ended, and models failed or were skipped; broken: it ended in an error."""
Phase = Literal["set-up", "train", "score", "write"]
ModelId = Annotated[str, Field(pattern=_ID)]


class _Part(BaseModel):
    """Later versions may say more."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class StageStatus(_Part):
    """The models of a stage, by what has become of them; those that wait are the rest.

    existing: were in the zoo before, trained to their end.
    epochs_done: of `epochs` in all; a model that ended early counts as if it had them all.
    """

    name: str
    models: int
    epochs: int
    epochs_done: float = 0.0
    existing: int = 0
    finished: int = 0
    diverged: int = 0
    failed: int = 0
    skipped: int = 0
    training: int = 0


class TrainingModel(_Part):
    """A model in training: `step` of `steps` of an epoch (from 1; 0: none yet) of `epochs`.

    label: the factors in which it differs from others of its stage.
    phase: what its worker does with it, since the time `since`.
    process: host and process of the worker; empty until it has spoken.
    """

    model: ModelId
    stage: str
    label: str
    worker: int
    process: str = ""
    phase: Phase = "set-up"
    since: float
    epoch: int = 0
    epochs: int
    step: int = 0
    steps: int = 0


class EndedModel(_Part):
    """A model that was trained to its end, with the metrics of its last epoch."""

    model: ModelId
    stage: str
    label: str
    at: float
    seconds: float
    metrics: dict[str, float] = {}


class Problem(_Part):
    """What went wrong with a model; `retried`: it was tried once more."""

    model: ModelId
    stage: str
    label: str
    kind: Literal["diverged", "failed", "skipped", "retried"]
    message: str
    at: float


class Note(_Part):
    """What was chosen or has changed, in a line."""

    text: str
    at: float


class GrowthStatus(_Part):
    """How far the growing of a zoo is. All times are in seconds since 1970, of the machine `host`.

    beat: when this was written.
    command, folder: the command line, and where it was typed; empty where Python was called.
    seconds_left: by estimate, at the time `beat`; None while nothing is known.
    epochs_per_second, images_per_second: of training, over the last minute, by all workers.
    workers: models trained at a time, or stacks of models, at most.
    in_training: how many models are; the first of them are listed in `training`.
    problems, recent, notes: the latest, the last one last; of skipped models fewer than of others.
    """

    format: Literal[1] = 1
    name: str
    host: str
    pid: int
    command: str = ""
    folder: str = ""
    state: State = "growing"
    message: str = ""
    started: float
    beat: float
    seconds_left: float | None = None
    epochs_per_second: float | None = None
    images_per_second: float | None = None
    workers: int
    stages: list[StageStatus]
    in_training: int = 0
    training: list[TrainingModel] = []
    problems: list[Problem] = []
    recent: list[EndedModel] = []
    notes: list[Note] = []


def write(zoo: Path, status: GrowthStatus) -> None:
    """Replace the file. Raises as `files.write`; a power cut may leave it empty."""
    text = status.model_dump_json() + "\n"
    files.write(zoo / FILE, files.utf8(text), durable=False)


def read(zoo: Path) -> GrowthStatus | None:
    """None where the zoo was not grown, or not by this version. Raises CorruptFile, NotReadable."""
    path = zoo / FILE
    try:
        with reading(path):
            about = path.lstat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(about.st_mode) or about.st_size > _MAX_BYTES:
        raise CorruptFile(path, "no file that growing writes")
    try:
        return GrowthStatus.model_validate(files.parsed_json(files.read(path)))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise CorruptFile(path, str(error.errors()[0]["msg"])) from None
    except (ValueError, RecursionError) as error:
        raise CorruptFile(path, f"not valid JSON ({error})") from None


def discard_leftovers(zoo: Path) -> None:
    """What a process left behind that was killed while it wrote; for who holds the zoo."""
    for path in zoo.glob(f".{FILE}.*.tmp"):
        files.discard(path)
