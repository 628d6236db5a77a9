"""One model of a zoo on disk.

    models/<id>/
      model.json             what it is: spec, outputs, classes, software; never changed
      epochs.jsonl           a line per finished epoch: metrics, and the checkpoint's checksum
      checkpoints/epoch-0000.safetensors ...
      progress-0007.safetensors   what resuming after epoch 7 needs; only while unfinished
      records.jsonl          measured numbers, a line each
      result.json            written last: finished or diverged

An epoch is finished once its line stands in epochs.jsonl; that file is replaced as a whole, after
all that the line speaks of is on disk. So a crash at any moment loses the running epoch alone.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from vitarium.blueprint import Spec, restored
from vitarium.config import InvalidConfig
from vitarium.errors import CorruptFile, InvalidInput
from vitarium.store import files

Status = Literal["training", "finished", "diverged"]


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
    """One finished epoch; number 0 is the state before training."""

    number: int
    metrics: Mapping[str, float]
    checkpoint: str | None
    """SHA-256 of the checkpoint's file; None where this epoch's weights are not kept."""
    progress: str | None = None
    """SHA-256 of the file to resume from."""


@dataclass(frozen=True)
class Record:
    """A measured number: of what, by what, with which settings."""

    epoch: int
    measure: str
    settings: Mapping[str, Any]
    value: float
    unit: str


class ModelFolder:
    """Reads a model's folder, and adds to it while the model is trained."""

    def __init__(self, path: Path) -> None:
        self.path = path

    # Reading

    @property
    def exists(self) -> bool:
        return (self.path / "model.json").exists()

    def spec(self) -> Spec:
        """Raises CorruptFile where the file is damaged or does not belong to this folder."""
        file = self.path / "model.json"
        try:
            spec = restored(self._about()["spec"])
        except (KeyError, InvalidConfig) as error:
            raise CorruptFile(file, f"no valid spec: {error}") from None
        if spec.id != self.path.name:
            raise CorruptFile(file, f"its content has the id {spec.id}")
        return spec

    def about(self) -> About:
        values = self._about()
        return About(values["num_outputs"], tuple(values["classes"]), values["software"])

    def epochs(self) -> list[Epoch]:
        """Finished epochs in order."""
        return [Epoch(**values) for values in files.read_lines(self.path / "epochs.jsonl")]

    def result(self) -> dict[str, Any] | None:
        """How the training ended: `status` and `message`; None while it has not."""
        file = self.path / "result.json"
        return files.read_json(file) if file.exists() else None

    @property
    def status(self) -> Status:
        result = self.result()
        return result["status"] if result else "training"

    def weights(self, epoch: int = -1) -> dict[str, Tensor]:
        """The weights after `epoch`; -1: the last kept. Raises InvalidInput, CorruptFile."""
        number, checksum = self.checkpoint(epoch)
        return files.read_tensors(self.checkpoint_path(number), checksum)

    def checkpoint(self, epoch: int = -1) -> tuple[int, str]:
        """Number and checksum of a kept epoch; -1: the last kept. Raises InvalidInput."""
        kept = {e.number: e.checkpoint for e in self.epochs() if e.checkpoint}
        if epoch == -1 and kept:
            epoch = max(kept)
        if epoch not in kept:
            raise InvalidInput(
                f"model {self.path.name} has no weights of epoch {epoch}; "
                + (f"it has {_ranges(list(kept))}" if kept else "it has none yet")
            )
        return epoch, kept[epoch]

    def records(self) -> list[Record]:
        """All that was measured of the model."""
        return [Record(**values) for values in files.read_lines(self.path / "records.jsonl")]

    def checkpoint_path(self, epoch: int) -> Path:
        return self.path / "checkpoints" / f"epoch-{epoch:04d}.safetensors"

    def progress(self) -> tuple[int, dict[str, Tensor]] | None:
        """The last finished epoch and the tensors to go on from; None before the first."""
        finished = self.epochs()
        if not finished or not finished[-1].progress:
            return None
        last = finished[-1]
        return last.number, files.read_tensors(self._progress_path(last.number), str(last.progress))

    # Writing

    def sweep(self) -> None:
        """Remove half-written files that a killed process left behind."""
        for file in self.path.rglob(".*.tmp"):
            file.unlink()

    def begin(self, spec: Spec, about: About) -> None:
        """Write down what the model is, before its first epoch."""
        value = {"format": 1, "spec": spec.factors(), **asdict(about)}
        files.write_json(self.path / "model.json", value)

    def commit(
        self,
        number: int,
        metrics: Mapping[str, float],
        weights: Mapping[str, Tensor] | None,
        progress: Mapping[str, Tensor] | None,
    ) -> None:
        """Add a finished epoch: all of it or, after a crash, nothing of it.

        Args:
            weights: what to keep as the epoch's checkpoint; None keeps none.
            progress: what a resumed run needs; None for the last epoch.
        """
        notes = {"model": self.path.name, "epoch": str(number)}
        checkpoint = resume = None
        if weights is not None:
            checkpoint = files.write_tensors(self.checkpoint_path(number), weights, notes)
        if progress is not None:
            resume = files.write_tensors(self._progress_path(number), progress, notes)
        before = [replace(e, progress=None) for e in self.epochs() if e.number < number]
        epochs = [*before, Epoch(number, dict(metrics), checkpoint, resume)]
        self._write_epochs(epochs)

    def add_records(self, records: list[Record]) -> None:
        """Add measured numbers to those that are there."""
        everything = [*self.records(), *records]
        files.write_lines(self.path / "records.jsonl", [asdict(record) for record in everything])

    def keep(self, number: int, weights: Mapping[str, Tensor]) -> None:
        """Add a checkpoint to an epoch that is finished already."""
        notes = {"model": self.path.name, "epoch": str(number)}
        checkpoint = files.write_tensors(self.checkpoint_path(number), weights, notes)
        epochs = self.epochs()
        changed = [replace(e, checkpoint=checkpoint) if e.number == number else e for e in epochs]
        self._write_epochs(changed)

    def finish(self, status: Literal["finished", "diverged"], message: str = "") -> None:
        """Write down how the training ended, and drop what only resuming needed."""
        files.write_json(self.path / "result.json", {"status": status, "message": message})
        self._drop_progress(keep=None)

    def _write_epochs(self, epochs: list[Epoch]) -> None:
        files.write_lines(self.path / "epochs.jsonl", [asdict(e) for e in epochs])
        self._drop_progress(keep=epochs[-1].number)

    def _drop_progress(self, keep: int | None) -> None:
        for file in self.path.glob("progress-*.safetensors"):
            if keep is None or file != self._progress_path(keep):
                file.unlink()

    def _progress_path(self, epoch: int) -> Path:
        return self.path / f"progress-{epoch:04d}.safetensors"

    def _about(self) -> dict[str, Any]:
        values = files.read_json(self.path / "model.json")
        if not isinstance(values, dict) or values.get("format") != 1:
            raise CorruptFile(self.path / "model.json", "not a model's description of format 1")
        return values


def _ranges(numbers: list[int]) -> str:
    """[0, 1, 2, 5] -> "0-2, 5"."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(f"{p[0]}-{p[-1]}" if len(p) > 1 else str(p[0]) for p in parts)
