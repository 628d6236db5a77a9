"""Packs and unpacks the checkpoints of a whole zoo, in place."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vitarium.store.lock import held
from vitarium.store.model_folder import ModelFolder


@dataclass(frozen=True)
class Conversion:
    """What became of a zoo's checkpoints."""

    checkpoints: int
    converted: int
    """The others were so already."""
    bytes_before: int
    bytes_after: int


def convert(
    folders: list[ModelFolder],
    to: Literal["packed", "plain"],
    zoo: Path,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Conversion:
    """Keep every checkpoint packed, or plain.

    One file at a time is written and read back before the old one goes: whoever is killed loses
    nothing, and going on is running it again. The zoo's lock is held. Models are converted side by
    side, one per core.

    Args:
        report: called with the number of checkpoints that are done, and of all.

    Raises ZooInUse, DiskFull and CorruptFile.
    """
    with held(zoo):
        kept = {
            folder.path: [e.number for e in folder.epochs() if e.checkpoint] for folder in folders
        }
        total = sum(map(len, kept.values()))
        before, done, converted = _bytes(folders), 0, 0

        def of_model(path: Path) -> None:
            nonlocal done, converted
            folder = ModelFolder(path)
            for epoch in kept[path]:
                changed = folder.pack(epoch) if to == "packed" else folder.unpack(epoch)
                done, converted = done + 1, converted + changed
                report(done, total)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(of_model, kept))
        return Conversion(total, converted, before, _bytes(folders))


def _bytes(folders: list[ModelFolder]) -> int:
    return sum(
        file.stat().st_size
        for folder in folders
        for file in folder.checkpoints.folder.glob("epoch-*")
    )
