"""Packed checkpoints that are whole, but build on one that is damaged or missing."""

from collections.abc import Collection, Iterator, Sequence
from functools import cache
from pathlib import Path

from vitarium.core import files
from vitarium.core.errors import CorruptFile, FileFault
from vitarium.zoo.checkpoint import PACKED, PLAIN, Checkpoint
from vitarium.zoo.model_folder import ModelFolder


def broken_bases(folders: Sequence[Path], damaged: Collection[Path]) -> Iterator[tuple[Path, Path]]:
    """Each such checkpoint, in order, with the file that reading it would need.

    Args:
        folders: of all models.
        damaged: files that are known to be damaged or missing.
    """

    @cache
    def base_of(path: Path) -> Path | None:
        if path.suffix == PLAIN:
            return None
        checkpoints = ModelFolder(path.parents[1]).checkpoints
        base = Checkpoint(path, checkpoints.find).base
        return checkpoints.path_of(base) if base else None

    def first_broken(path: Path) -> Path | None:
        """The first file on the chain of bases that cannot be read."""
        chain: list[Path] = []
        base: Path | None = path
        while base and base not in chain:  # a circle is a fault of each file in it
            try:
                if base in damaged or not files.exists(base):
                    return base
                chain.append(base)
                base = base_of(base)
            except (CorruptFile, OSError):
                return base
        return None

    for path in sorted(path for folder in folders for path in _packed(folder)):
        broken = first_broken(path)
        if broken and broken != path and path not in damaged:
            yield path, broken


def _packed(folder: Path) -> list[Path]:
    try:
        return [path for path in files.listed(folder / "checkpoints") if path.suffix == PACKED]
    except FileFault:  # a fault of the model, which is reported already
        return []
