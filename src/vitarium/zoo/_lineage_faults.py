"""Models that others come of and that are not there, or have other weights than at that time."""

import re
from collections.abc import Iterator, Sequence, Sized
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vitarium.core import files
from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.errors import CorruptFile, InvalidInput
from vitarium.zoo import _ledger
from vitarium.zoo._sources import Source, contents_then
from vitarium.zoo.model_folder import ModelFolder

_LISTED = 6  # models that one fault names
_ID = re.compile("[0-9a-f]{12}")


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a zoo."""

    path: str
    """Inside the zoo."""
    fault: str
    lost: str
    """What is lost by it, and what can be done."""


class LineageFaults:
    """Collects them over all models of a zoo: a fault for each cause, whatever depends on it."""

    def __init__(self, zoo: Path) -> None:
        self.zoo = zoo
        self._dependents: dict[str, list[str]] = {}
        """By missing model."""
        self._checkpoints: dict[str, set[Path]] = {}
        """By missing model: those that build on it."""
        self._changed: dict[CheckpointRef, list[str]] = {}

    def is_missing(self, model: str) -> bool:
        """Whether there is no such model in the zoo. Raises NotReadable."""
        is_id = bool(_ID.fullmatch(model))
        return is_id and not files.exists(self.zoo / "models" / model / "model.json")

    def add_dependent(self, source: Source, model: str) -> bool:
        """Note a model that comes of a source; False where that is neither there nor missing: its
        epoch is not kept, or it is damaged."""
        if source.epoch in _ledger.contents(self.zoo, source.model):
            return True  # it was removed, and is not expected
        if self.is_missing(source.model):
            self._dependents.setdefault(source.model, []).append(model)
            return True
        return False

    def add_checkpoint(self, base: Path, checkpoint: Path) -> bool:
        """Note a checkpoint that builds on a file; False unless that file's model is missing."""
        inside = base.relative_to(self.zoo).parts if base.is_relative_to(self.zoo) else ()
        if len(inside) < 2 or not self.is_missing(inside[1]):
            return False
        self._checkpoints.setdefault(inside[1], set()).add(checkpoint)
        return True

    def add_changed(self, folder: ModelFolder) -> None:
        """Note what a model came of that has other weights now. Raises CorruptFile."""
        for ref in changed_sources(folder):
            self._changed.setdefault(ref, []).append(folder.path.name)

    def faults(self) -> Iterator[Fault]:
        for model in sorted(self._dependents.keys() | self._checkpoints.keys()):
            builders = self._checkpoints.get(model, set())
            come = {*self._dependents.get(model, []), *(path.parts[-3] for path in builders)}
            come_of_it = f"{_counted(come)} come{'s' * (len(come) == 1)} of it"
            text = f"it is missing; {come_of_it}: {_listed(sorted(come))}"
            lost = "their lineage; their weights are whole"
            if builders:
                text += f"; {len(builders)} of their checkpoints build on it"
                lost = (
                    "these checkpoints, until the folder is restored, or grown or imported again: "
                    "the same seeds give it back, with the same versions, precision and threads"
                )
            yield Fault(f"models/{model}", text, lost)
        for (model, epoch), dependents in sorted(self._changed.items()):
            text = (
                f"after epoch {epoch} it has other weights than {_counted(dependents)} started from"
            )
            text += f": {_listed(dependents)}"
            lost = f"what these started from: {model} was grown again, or replaced; all are whole"
            yield Fault(f"models/{model}", text, lost)


def changed_sources(folder: ModelFolder) -> list[CheckpointRef]:
    """Checkpoints that a model came of, in whose place the zoo has others. Raises CorruptFile."""
    changed = []
    for name, content in contents_then(folder.path).items():
        model, _, epoch = name.partition("@")
        source = ModelFolder(folder.path.parent / model)
        with suppress(InvalidInput, CorruptFile, OSError):  # a fault of its own, if it is one
            if _ID.fullmatch(model) and source.checkpoint(int(epoch))[1] != content:
                changed.append(CheckpointRef(model, int(epoch)))
    return changed


def _counted(models: Sized) -> str:
    return f"{len(models)} model{'s' * (len(models) != 1)}"


def _listed(models: Sequence[str]) -> str:
    more = f" and {len(models) - _LISTED} more" if len(models) > _LISTED else ""
    return f"{', '.join(models[:_LISTED])}{more}"
