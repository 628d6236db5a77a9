"""Where a model's checkpoints lie, and which of them builds on which."""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitarium.core import files
from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.errors import CorruptFile
from vitarium.zoo._format import packing
from vitarium.zoo._format.description import Base
from vitarium.zoo._format.packing import Source, Written
from vitarium.zoo.checkpoint import MAX_DEPTH, PACKED, PLAIN, Checkpoint, Unmarked

if TYPE_CHECKING:
    from torch import Tensor

_REMEMBERED_BYTES = 4_000_000
"""Checkpoints up to this size are remembered while a model is trained: reading the bases of a small
one back would take longer than all else that writing takes."""


class CheckpointFolder:
    """The checkpoints of one model; `models` is the folder in which the zoo's models lie."""

    def __init__(self, models: Path, model: str) -> None:
        self.models, self.model = models, model
        self.folder = models / model / "checkpoints"
        self._recent: dict[CheckpointRef, Written] = {}

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

        def read(path: Path) -> Checkpoint:
            ref, packed = CheckpointRef(self.model, epoch), self.packed(epoch)
            try:
                return opened(path, content, ref, self.find)
            except Unmarked:
                if path == packed or not packed.exists():
                    raise
                # of format 1: who packed it was killed after its line had named what is packed
                return opened(packed, content, ref, self.find)

        return self._either(epoch, read)

    def base(self, epoch: int) -> Checkpoint:
        """The checkpoint after an epoch, for others to build on; its content is theirs to compare.

        Of format 1 only what epochs.jsonl names is opened. Raises CorruptFile.
        """

        def read(path: Path) -> Checkpoint:
            checkpoint = Checkpoint(path, self.find)
            _check_written_as(checkpoint, CheckpointRef(self.model, epoch))
            return checkpoint

        try:
            return self._either(epoch, read)
        except Unmarked:
            lines = files.read_lines(self.folder.parent / "epochs.jsonl", sealed=False)
            named = [line for line in lines if isinstance(line, dict)]
            content = {line.get("number"): line.get("checkpoint") for line in named}.get(epoch)
            if not isinstance(content, str):
                raise
            return self.open(epoch, content)

    def write(
        self, epoch: int, weights: "Mapping[str, Tensor]", bases: Iterable[CheckpointRef]
    ) -> str:
        """Write a packed checkpoint; returns what it holds (`content_of`).

        `bases`, the best first, are what it may build on; those that lie elsewhere, or are read
        through too many others, are passed over.
        """
        candidates, best = list(bases), None
        for model, base_epoch in candidates:
            folder = CheckpointFolder(self.models, model)
            if folder.path(base_epoch).exists():
                recent = self._recent.get(CheckpointRef(model, base_epoch))
                source: Source = recent or folder.base(base_epoch)
                if source.depth < MAX_DEPTH:
                    best = Base(model, base_epoch, source.content), source
                    break
        pieces, written = packing.against(best, weights, self.notes(epoch))
        files.write(self.packed(epoch), pieces, root=self.models.parent)
        # what the next epochs build on is this one, or one of those that it may build on
        self._recent = {ref: state for ref, state in self._recent.items() if ref in candidates}
        if written.nbytes <= _REMEMBERED_BYTES:
            self._recent[CheckpointRef(self.model, epoch)] = written.copy()
        return written.content

    def write_plain(self, epoch: int, weights: "Mapping[str, Tensor]") -> str:
        """Write a plain checkpoint; returns what it holds (`content_of`)."""
        pieces, content = packing.plain(weights, self.notes(epoch))
        files.write(self.plain(epoch), pieces, root=self.models.parent)
        return content

    def remove(self, epochs: Iterable[int]) -> None:
        """Remove the files of these epochs, where there are any. Raises LeadsOutside."""
        for epoch in sorted(epochs, reverse=True):  # the last first: it may build on those before
            for path in (self.plain(epoch), self.packed(epoch)):
                if files.exists(path):
                    files.remove(path, root=self.models.parent)

    def notes(self, epoch: int) -> dict[str, Any]:
        return {"model": self.model, "epoch": epoch}

    def find(self, base: Base) -> Checkpoint:
        return self._folder(base).base(base.epoch)

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


def opened(path: Path, content: str, ref: CheckpointRef, find: Any = None) -> Checkpoint:
    """Open a file that epochs.jsonl names, which should hold `content` (`content_of`).

    A file without checksums of its own, as format 1 had them, is believed where `content` is the
    SHA-256 of all its bytes; so no damage makes a file of format 2 pass for one.
    """
    try:
        checkpoint = Checkpoint(path, find)
    except Unmarked:
        if files.digest(path) != content:
            raise Unmarked(
                path,
                "it does not begin with the mark of a checkpoint, and is no file of format 1 that "
                "epochs.jsonl names by its SHA-256; restore the file or regrow it",
            ) from None
        return Checkpoint(path, find, marked=False)
    if checkpoint.content != content:
        raise CorruptFile(path, "it is whole, but not the checkpoint that epochs.jsonl names")
    _check_written_as(checkpoint, ref)
    return checkpoint


def _check_written_as(checkpoint: Checkpoint, ref: CheckpointRef) -> None:
    if checkpoint.written_as != ref:
        model, epoch = checkpoint.written_as
        fault = f"it is whole, but says that it is of model {model} after epoch {epoch}"
        raise CorruptFile(checkpoint.path, fault)
