"""Files beside a model's checkpoints, of which the line of its last epoch says what they hold."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vitarium.core import files
from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.zoo._format import packing
from vitarium.zoo._model_files import Epoch
from vitarium.zoo.checkpoint import PLAIN, Checkpoint
from vitarium.zoo.checkpoint_folder import opened

if TYPE_CHECKING:
    from torch import Tensor


class EpochFile:
    """What an epoch leaves beside its weights, as `KIND-0007.safetensors`.

    progress: what training goes on from. companions: what the objective brought beside the model.
    """

    def __init__(self, model: Path, kind: Literal["progress", "companions"]) -> None:
        self.model, self.kind = model, kind
        self._zoo = model.parent.parent

    def path(self, epoch: int) -> Path:
        """Where it lies, if there is one."""
        return self.model / f"{self.kind}-{epoch:04d}{PLAIN}"

    def open(self, epoch: int, content: str) -> Checkpoint:
        """The file after an epoch, whose line says that it holds `content`. Raises CorruptFile."""
        return opened(self.path(epoch), content, CheckpointRef(self.model.name, epoch))

    def write(self, epoch: int, tensors: "Mapping[str, Tensor]") -> str:
        """Write tensors [*shape] by name; returns what the file holds (`content_of`)."""
        pieces, content = packing.plain(tensors, {"model": self.model.name, "epoch": epoch})
        files.write(self.path(epoch), pieces, root=self._zoo)
        return content

    def remove_unnamed(self, epochs: Iterable[Epoch] = ()) -> None:
        """Remove those of which no line of these epochs speaks. Raises LeadsOutside."""
        files.check_inside(self.model, self._zoo)
        named = {self.path(epoch.number) for epoch in epochs if getattr(epoch, self.kind)}
        for file in self.model.glob(f"{self.kind}-*{PLAIN}"):
            if file not in named:
                files.unlink(file)
