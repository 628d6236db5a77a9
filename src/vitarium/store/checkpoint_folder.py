"""Where a model's checkpoints lie, and which of them builds on which."""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitarium.errors import CorruptFile
from vitarium.store import files, packing
from vitarium.store.checkpoint import MOST_DECODES, PACKED, PLAIN, Checkpoint
from vitarium.store.description import Base
from vitarium.store.packing import Source, Written

if TYPE_CHECKING:
    from torch import Tensor

Place = tuple[str, int]
"""A model's id and an epoch."""

_REMEMBERED_BYTES = 4_000_000
"""Checkpoints up to this size are remembered while a model is trained: reading the bases of a small
one back would take longer than all else that writing takes."""


class CheckpointFolder:
    """The checkpoints of one model; `models` is the folder in which the zoo's models lie."""

    def __init__(self, models: Path, model: str) -> None:
        self.models, self.model = models, model
        self.folder = models / model / "checkpoints"
        self._recent: dict[Place, Written] = {}

    def path(self, epoch: int) -> Path:
        """The file of an epoch: plain if there is one, else packed; it need not be there."""
        plain, packed = self.plain(epoch), self.packed(epoch)
        return packed if packed.exists() and not plain.exists() else plain

    def plain(self, epoch: int) -> Path:
        return self.folder / f"epoch-{epoch:04d}{PLAIN}"

    def packed(self, epoch: int) -> Path:
        return self.folder / f"epoch-{epoch:04d}{PACKED}"

    def open(self, epoch: int, content: str) -> Checkpoint:
        """Raises CorruptFile where the file is damaged, or holds not what epochs.jsonl says."""
        return self._either(epoch, lambda path: opened(path, content, self.find))

    def write(self, epoch: int, weights: "Mapping[str, Tensor]", bases: Iterable[Place]) -> str:
        """Write a packed checkpoint; returns what it holds (`content_of`).

        Args:
            bases: what it may build on, the best first; those that lie elsewhere, or are read
                through too many others, are passed over.
        """
        places = list(bases)
        pieces, written = packing.against(self._base(places), weights, self.notes(epoch))
        files.write(self.packed(epoch), pieces, root=self.models.parent)
        # what the next epochs build on is this one, or one of those that it may build on
        self._recent = {place: known for place, known in self._recent.items() if place in places}
        if written.nbytes <= _REMEMBERED_BYTES:
            self._recent[self.model, epoch] = written.copy()
        return written.content

    def write_plain(self, epoch: int, weights: "Mapping[str, Tensor]") -> str:
        """Write a plain checkpoint; returns what it holds (`content_of`)."""
        pieces, content = packing.plain(weights, self.notes(epoch))
        files.write(self.plain(epoch), pieces, root=self.models.parent)
        return content

    def notes(self, epoch: int) -> dict[str, Any]:
        return {"model": self.model, "epoch": epoch}

    def _base(self, places: Iterable[Place]) -> tuple[Base, Source] | None:
        for model, epoch in places:
            path = CheckpointFolder(self.models, model).path(epoch)
            if path.exists():
                found = self._recent.get((model, epoch)) or Checkpoint(path, self.find)
                if found.depth < MOST_DECODES:
                    return Base(model, epoch, found.content), found
        return None

    def find(self, base: Base) -> Checkpoint:
        folder = self._folder(base)
        return folder._either(base.epoch, lambda path: Checkpoint(path, self.find))

    def path_of(self, base: Base) -> Path:
        return self._folder(base).path(base.epoch)

    def _folder(self, base: Base) -> "CheckpointFolder":
        if not re.fullmatch("[0-9a-f]+", base.model):  # a path into someone's home, perhaps
            raise CorruptFile(self.folder, f"a checkpoint builds on '{base.model}', which is no id")
        return CheckpointFolder(self.models, base.model)

    def _either(self, epoch: int, read: Callable[[Path], Checkpoint]) -> Checkpoint:
        """Read an epoch's file, though another process may just be packing or unpacking it."""
        path = self.path(epoch)
        try:
            return read(path)
        except CorruptFile:
            if path.exists() or not self.path(epoch).exists():
                raise
            return read(self.path(epoch))


def opened(path: Path, content: str, find: Any = None) -> Checkpoint:
    """Open a file that should hold `content` (`content_of`; format 1: SHA-256 of the file).

    Raises CorruptFile.
    """
    checkpoint = Checkpoint(path, find)
    if checkpoint.content != content:
        if checkpoint.is_sealed:
            raise CorruptFile(path, "it is whole, but not the checkpoint that epochs.jsonl names")
        files.check(path, content)
    return checkpoint
