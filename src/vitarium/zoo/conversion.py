"""Packs and unpacks the checkpoints of a whole zoo, in place."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from threading import Lock
from typing import Literal

from vitarium.core.errors import CorruptFile
from vitarium.core.progress import SILENT, Progress
from vitarium.zoo.lock import held
from vitarium.zoo.model_folder import ModelFolder
from vitarium.zoo.zoo import Zoo


@dataclass(frozen=True)
class Conversion:
    """What became of a zoo's checkpoints."""

    checkpoints: int
    converted: int
    """The others were so already."""
    bytes_before: int
    bytes_after: int


def convert(path: Path, to: Literal["packed", "plain"], progress: Progress = SILENT) -> Conversion:
    """Keep every checkpoint of the zoo in a folder packed, or plain.

    A model comes after the one whose weights its own build on, so that what is packed stands on
    bases that stay as they are. One file at a time is written and read back before the old one
    goes: whoever is killed loses nothing, and going on is running it again. The zoo's lock is held.
    Models that do not wait for each other are converted side by side, one per core.

    Raises ZooInUse and DiskFull; CorruptFile for the first checkpoint that cannot be read, after
    all others have been converted.
    """
    zoo = Zoo.open(path)
    convert_one = ModelFolder.pack if to == "packed" else ModelFolder.unpack
    lock, faults, outcomes = Lock(), list[CorruptFile](), list[bool]()
    folders = [zoo.folder(id) for id in zoo.ids()]

    def convert_model(folder: ModelFolder) -> None:
        for epoch in epochs[folder.path]:
            converted = False
            try:
                converted = convert_one(folder, epoch)
            except CorruptFile as error:
                faults.append(error)
            with lock:
                outcomes.append(converted)
                progress.step("checkpoints", len(outcomes), total)

    with held(zoo.path):
        epochs: dict[Path, list[int]] = {}
        for folder in folders:
            try:
                epochs[folder.path] = [e.number for e in folder.epochs() if e.checkpoint]
            except CorruptFile as error:
                faults.append(error)
                epochs[folder.path] = []
        total, before = sum(map(len, epochs.values())), _nbytes(folders)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for generation in _generations(folders):
                list(pool.map(convert_model, generation))
        if faults:
            rest = f"; so do {len(faults) - 1} more" if len(faults) > 1 else ""
            others = f"{rest}, all others are {to} (`vitarium verify` lists what is damaged)"
            raise CorruptFile(faults[0].path, f"{faults[0].fault}; it stays as it is{others}")
        return Conversion(total, sum(outcomes), before, _nbytes(folders))


def _generations(folders: list[ModelFolder]) -> Iterator[list[ModelFolder]]:
    """The models, those first whose checkpoints build on no other model's.

    An id is a hash of the parent's, so that no model descends from itself.
    """
    by_id = {folder.path.name: folder for folder in folders}
    builds_on: dict[str, set[str]] = {}
    for id, folder in by_id.items():
        try:
            builds_on[id] = {base.model for base in folder.bases(0)} - {id}
        except CorruptFile:  # what is wrong with it comes to light when it is converted
            builds_on[id] = set()
    order = TopologicalSorter(builds_on)
    order.prepare()
    while order.is_active():
        ids = order.get_ready()
        yield [by_id[id] for id in sorted(ids) if id in by_id]
        order.done(*ids)


def _nbytes(folders: list[ModelFolder]) -> int:
    files = (file for folder in folders for file in folder.checkpoints.folder.glob("epoch-*"))
    return sum(file.stat().st_size for file in files)
