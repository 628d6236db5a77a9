"""What stands in the files of a model's folder, and how they are read."""

import errno
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from vitarium.core import files
from vitarium.core.errors import CorruptFile
from vitarium.core.file_faults import fault, reading

FORMAT = 2
EPOCH_FILES = ("progress", "companions")
"""What an epoch may leave beside its weights."""
Status = Literal["training", "finished", "diverged"]
Line = TypeVar("Line")

_KEYS = {"format", "spec", "num_outputs", "classes", "software"}
"""Of a description; `sources` is in those alone that have some."""
_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}
_WATCHED = ("/model.json", "/epochs.jsonl", "/result.json", "/records.jsonl", "/annotations.json")


@dataclass(frozen=True)
class About:
    """What is known of a model beside its spec."""

    num_outputs: int
    """Width of the model's output, as needed to build it."""
    classes: tuple[str, ...]
    """Names of the classes of its data, in the order of the labels."""
    software: Mapping[str, str]
    """Versions, device and threads with which it was trained."""


@dataclass(frozen=True)
class Epoch:
    """One finished epoch; whether one is the state before training: `Spec.initial_epoch`."""

    number: int
    metrics: Mapping[str, float]
    checkpoint: str | None
    """SHA-256 of what the checkpoint holds (`_format.description.content_of`); None: not kept."""
    progress: str | None = None
    """The same of the file to resume from."""
    companions: str | None = None
    """The same of what the objective brought beside the model; None: not kept."""

    def line(self) -> dict[str, Any]:
        """What stands in epochs.jsonl; what later versions added stands there alone where it is."""
        values = asdict(self)
        if self.companions is None:
            del values["companions"]
        return values


@dataclass(frozen=True)
class Record:
    """A number that an earlier version measured: of what, by what, with which settings."""

    epoch: int
    measure: str
    settings: Mapping[str, Any]
    value: float
    unit: str


def read_description(folder: Path) -> dict[str, Any]:
    """What model.json holds: format, spec, num_outputs, classes, software, and what its sources
    held (`sources`, where it has any). Raises CorruptFile."""
    file = folder / "model.json"
    values = files.read_sealed(file, format_1=lambda values: values.get("format") == 1)
    if values.get("format") not in (1, FORMAT):
        raise CorruptFile(file, f"not a model's description of format 1 to {FORMAT}")
    if values.keys() - {"sources"} != _KEYS or not isinstance(values.get("sources", {}), dict):
        raise CorruptFile(file, f"it has {', '.join(values)}")
    return values


def read_epochs(folder: Path) -> list[Epoch]:
    """Finished epochs in order. Raises CorruptFile."""
    epochs = read_lines(folder, "epochs.jsonl", Epoch)
    for line, epoch in enumerate(epochs, 1):
        if fault := _fault_of(epoch):
            raise CorruptFile(folder / "epochs.jsonl", f"line {line}: {fault}")
    return [replace(epoch, metrics=_renamed(epoch.metrics)) for epoch in epochs]


def _fault_of(epoch: Epoch) -> str:
    """What is no epoch in it; empty where it is one."""
    if type(epoch.number) is not int or epoch.number < 0:
        return f"{epoch.number!r} is no epoch's number"
    contents = (epoch.checkpoint, epoch.progress, epoch.companions)
    if not all(isinstance(each, str | None) for each in contents):
        return "its checkpoint is no text"
    if not isinstance(epoch.metrics, dict):
        return "its metrics are no mapping"
    return ""


def _renamed(metrics: Mapping[str, float]) -> dict[str, float]:
    """Under today's names: earlier versions called the rate of an epoch as a factor is called."""
    return {"epoch_lr" if name == "lr" else name: value for name, value in metrics.items()}


def read_lines(folder: Path, name: str, kind: type[Line]) -> list[Line]:
    """Lines of epochs.jsonl or records.jsonl, or none without a file. Raises CorruptFile."""
    file = folder / name
    if not files.exists(file):
        return []
    entries = []
    lines = files.read_lines(file, sealed=read_description(folder)["format"] > 1)
    for number, values in enumerate(lines, 1):
        try:
            entries.append(kind(**values))
        except TypeError as error:
            raise CorruptFile(file, f"line {number}: {error}") from None
    return entries


def ranges(numbers: list[int]) -> str:
    """[0, 1, 2, 5] -> "0-2, 5"."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(f"{p[0]}-{p[-1]}" if len(p) > 1 else str(p[0]) for p in parts)


def model_stamps(zoo: Path) -> dict[str, str]:
    """Every model's files' times and sizes, which show what has changed. Raises NotReadable.

    Plain system calls, relative to the folder: for 10,000 models, pathlib takes a second longer.
    """
    folder = zoo / "models"
    try:
        with reading(folder):
            models = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return {}
    try:
        names = sorted(os.listdir(models))  # noqa: PTH208 (of an open folder)
        labels = _stamp_of(models, "../stages.json")
        return {id: f"{stamp} {labels}" for id in names if (stamp := _stamp(models, id))}
    except OSError as error:
        raise fault(error, folder / str(error.filename), writing=False) from None
    finally:
        os.close(models)


def _stamp(models: int, id: str) -> str:
    """Time and size of each of a model's files; empty for what is no model. Raises OSError."""
    stamp: list[str] = []
    for name in _WATCHED:
        stamp.append(_stamp_of(models, id + name))
        if stamp == ["-"]:
            return ""
    return " ".join(stamp)


def _stamp_of(folder: int, name: str) -> str:
    """Time and size of a file; `-` where there is none. Raises OSError."""
    try:
        status = os.stat(name, dir_fd=folder)
    except OSError as error:
        if error.errno not in _ABSENT:
            raise
        return "-"
    return f"{status.st_mtime_ns}:{status.st_size}"
