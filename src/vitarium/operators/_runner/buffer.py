"""Where a result that is too large for memory lies until it is kept."""

import tempfile
from pathlib import Path

from torch import Tensor

from vitarium.core import files
from vitarium.core.file_faults import writing
from vitarium.zoo._scratch import scratch

IN_MEMORY = 128_000_000
"""Bytes up to which a result is held in memory, and packed when it is kept."""


class DiskBuffer(tempfile.TemporaryDirectory[str]):
    """A folder of tensors that are mapped into memory; the system writes them out for room.

    Args:
        folder: of a zoo, in which it is made; it is gone at the end.

    Raises DiskFull, NotWritable and LeadsOutside.
    """

    def __init__(self, folder: Path) -> None:
        files.check_inside(folder, folder.parent)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            super().__init__(dir=folder, prefix=".merge.")
        self._count = 0

    def __enter__(self) -> "DiskBuffer":  # type: ignore[override]
        return self

    def write(self, tensor: Tensor) -> Tensor:
        """A copy of a tensor [*shape], mapped from a file of the folder. Raises DiskFull."""
        if not tensor.numel():
            return tensor
        self._count += 1
        stored = scratch(Path(self.name) / str(self._count), tensor.numel(), tensor.dtype)
        return stored.view(tensor.shape).copy_(tensor)
