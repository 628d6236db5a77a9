"""Packs and unpacks the checkpoints of a whole zoo, in place."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from threading import Lock
from typing import Literal

from vitarium.core.errors import CorruptFile
from vitarium.zoo.lock import held
from vitarium.zoo.model_folder import ModelFolder


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

    A model comes after the one whose weights its own build on, so that what is packed stands on
    bases that stay as they are. One file at a time is written and read back before the old one
    goes: whoever is killed loses nothing, and going on is running it again. The zoo's lock is held.
    Models that do not wait for each other are converted side by side, one per core.

    Args:
        report: called with the number of checkpoints that are done, and of all.

    Raises ZooInUse and DiskFull; CorruptFile for the first checkpoint that cannot be read, after
    all others have been converted.
    """
    with held(zoo):
        conversion = _Running(folders, to, report)
        before = _bytes(folders)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for generation in _generations(folders):
                list(pool.map(conversion.convert_model, generation))
        if conversion.faults:
            raise _first_of(conversion.faults, to)
        return Conversion(conversion.total, conversion.converted, before, _bytes(folders))


def _first_of(faults: list[CorruptFile], to: str) -> CorruptFile:
    rest = f"; so do {len(faults) - 1} more" if len(faults) > 1 else ""
    return CorruptFile(
        faults[0].path,
        f"{faults[0].fault}; it stays as it is{rest}, all others are {to} "
        "(`vitarium verify` lists what is damaged)",
    )


class _Running:
    """A conversion that is going on, counted by several threads."""

    def __init__(
        self,
        folders: list[ModelFolder],
        to: Literal["packed", "plain"],
        report: Callable[[int, int], None],
    ) -> None:
        self._convert = ModelFolder.pack if to == "packed" else ModelFolder.unpack
        self._report = report
        self._lock = Lock()
        self.done = self.converted = 0
        self.faults: list[CorruptFile] = []
        self._epochs = {folder.path: self._weights_of(folder) for folder in folders}
        self.total = sum(map(len, self._epochs.values()))

    def convert_model(self, folder: ModelFolder) -> None:
        for epoch in self._epochs[folder.path]:
            converted = False
            try:
                converted = self._convert(folder, epoch)
            except CorruptFile as error:
                self.faults.append(error)
            with self._lock:
                self.done, self.converted = self.done + 1, self.converted + converted
                self._report(self.done, self.total)

    def _weights_of(self, folder: ModelFolder) -> list[int]:
        """Epochs of which the weights are in the zoo, in order."""
        try:
            return [epoch.number for epoch in folder.epochs() if epoch.checkpoint]
        except CorruptFile as error:
            self.faults.append(error)
            return []


def _generations(folders: list[ModelFolder]) -> Iterator[list[ModelFolder]]:
    """The models, those first whose checkpoints build on no other model's.

    An id is a hash of the parent's, so that no model descends from itself.
    """
    by_id = {folder.path.name: folder for folder in folders}
    order = TopologicalSorter({id: _builds_on(folder) for id, folder in by_id.items()})
    order.prepare()
    while order.is_active():
        ids = order.get_ready()
        yield [by_id[id] for id in sorted(ids) if id in by_id]
        order.done(*ids)


def _builds_on(folder: ModelFolder) -> list[str]:
    """Ids of the models on whose checkpoints its own build, where that can be read."""
    try:
        return list({id for id, _ in folder.bases(0)} - {folder.path.name})
    except CorruptFile:  # what is wrong with it comes to light when it is converted
        return []


def _bytes(folders: list[ModelFolder]) -> int:
    return sum(
        file.stat().st_size
        for folder in folders
        for file in folder.checkpoints.folder.glob("epoch-*")
    )
