"""Removes models and checkpoints from a zoo; what comes of them stays whole.

In this order, so that whoever is killed leaves a zoo that is whole, and running it again goes on:
what is removed is written down in `removed/` (see `_ledger`), packed checkpoints that build on it
are packed anew without it, numbers and cached passes of it go, and then, children first, single
checkpoints and models' folders, each folder at one blow.
"""

import re
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vitarium.core import files
from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.errors import CorruptFile, InvalidInput, LeadsOutside
from vitarium.core.file_faults import writing
from vitarium.core.parameters import parameter
from vitarium.core.progress import SILENT, Progress
from vitarium.zoo import _index, _ledger, _sources, records
from vitarium.zoo._rebase import built_on, rebase
from vitarium.zoo.checkpoint import Checkpoint
from vitarium.zoo.listing import select
from vitarium.zoo.lock import bases_stay, held
from vitarium.zoo.model import ModelNames
from vitarium.zoo.zoo import Zoo

_ROLES = {"parent": "a child of", "ingredient": "made from", "teacher": "taught by"}
_LISTED = 4  # dependents that an error names


@dataclass(frozen=True)
class Removal:
    """What is removed from a zoo, or would be."""

    models: tuple[str, ...]
    """Ids of the models that go, children before their parents."""
    checkpoints: tuple[CheckpointRef, ...]
    """Weights that go of models that stay."""
    dependents: dict[str, str]
    """Models that stay and come of those, and how: `a child of 3f2a...@2`."""
    rebased: tuple[CheckpointRef, ...]
    """Checkpoints of models that stay, packed anew since they built on what goes."""
    records: int
    """Measured numbers that go, of models and of pairs."""
    bytes_of: dict[str, int]
    """Bytes of the files that go, by model or checkpoint (`ID@EPOCH`)."""

    @property
    def nbytes(self) -> int:
        """Bytes of all files that go."""
        return sum(self.bytes_of.values())


def remove(
    zoo: Zoo | str | Path,
    models: ModelNames | None = None,
    *,
    where: str = "",
    with_dependents: bool = False,
    keep_dependents: bool = False,
    dry_run: bool = False,
    wait: bool = False,
    progress: Progress = SILENT,
) -> Removal:
    """Remove models, or checkpoints of them, from a zoo: files, measured numbers, cached passes.

    What a removed model was, and which weights it had (not the weights), stays in the zoo's folder
    `removed`: models that come of it are whole without it, and when it is grown again it says
    whether it has the same bits. Weights of models that stay are the same bits as before.

    Args:
        models: ids or beginnings of them; `ID@EPOCH` removes the weights after that epoch alone.
        where: an SQL condition, see `vitarium.zoo.listing.listing`.
        with_dependents: remove the models that come of them, too: children, merged models and those
            that were taught by them, and all that come of these.
        keep_dependents: let these stay, though what they come of goes.
        dry_run: remove nothing.
        wait: until another process that writes into the zoo is done, instead of giving up.
        progress: is told of each checkpoint that is packed anew.

    Raises InvalidInput where models come of them and neither is said, or for weights of an
    unfinished model; UnknownName, ZooInUse, LeadsOutside, NotWritable, DiskFull; and CorruptFile
    for a checkpoint that builds on what goes and cannot be read. Then nothing has been removed.
    """
    zoo = Zoo.open(zoo)
    if dry_run:
        return _planned(zoo, models, where, with_dependents, keep_dependents)
    with held(zoo.path, wait=wait), bases_stay(zoo.path):
        _sweep(zoo)
        removal = _planned(zoo, models, where, with_dependents, keep_dependents)
        for id in removal.models:  # before anything goes
            files.check_inside(zoo.folder(id).path, zoo.path)
        _write_ledger(zoo, removal)
        gone = _gone(zoo, removal.models, removal.checkpoints)
        for done, ref in enumerate(removal.rebased):
            progress.step("checkpoints", done, len(removal.rebased))
            rebase(zoo.folder(ref.model), ref.epoch, gone)
        progress.step("checkpoints", len(removal.rebased), len(removal.rebased))
        records.remove(zoo.path, removal.models)
        _remove_cached(zoo.path, gone | {*removal.checkpoints})
        changing = {*removal.models, *(ref.model for ref in removal.checkpoints)}
        for id in _children_first(_sources.sources_by_model(zoo), changing):
            if id in removal.models:
                _remove_folder(zoo.path, zoo.folder(id).path)
            else:
                epochs = [ref.epoch for ref in removal.checkpoints if ref.model == id]
                zoo.folder(id).drop(epochs)
        with suppress(CorruptFile):  # of another model; the index is made anew when it is needed
            _index.load(zoo.path)
    return removal


def _planned(
    zoo: Zoo,
    models: ModelNames | None,
    where: str,
    with_dependents: bool,
    keep_dependents: bool,
) -> Removal:
    if with_dependents and keep_dependents:
        both = [parameter(name, True) for name in ("with_dependents", "keep_dependents")]
        raise InvalidInput(f"{' and '.join(both)}: choose one of them")
    ids, refs = list[str](), list[CheckpointRef]()
    for name in select(zoo, models, where, "remove"):
        if "@" in name:
            refs.append(zoo.at(name))
        else:
            ids.append(zoo.find(name))
    by_model = _sources.sources_by_model(zoo)
    dependents = _dependents(by_model, ids, refs)
    while with_dependents and dependents:
        ids += dependents
        dependents = _dependents(by_model, ids, refs)
    if dependents and not keep_dependents:
        raise InvalidInput(_refusal(dependents))
    refs = [ref for ref in dict.fromkeys(refs) if ref.model not in ids]
    for ref in refs:
        if zoo.folder(ref.model).result() is None:
            fault = f"{ref} is of an unfinished model, which would go on from it"
            raise InvalidInput(f"{fault}; remove the whole model, or let it be trained to its end")
    order = _children_first(by_model, set(ids))
    rebased = tuple(built_on(zoo, _gone(zoo, order, refs), order))
    count = records.count(zoo.path, order)
    return Removal(
        tuple(order), tuple(refs), dependents, rebased, count, _bytes_of(zoo, order, refs)
    )


def _bytes_of(zoo: Zoo, ids: Collection[str], refs: Collection[CheckpointRef]) -> dict[str, int]:
    paths = {id: [f for f in zoo.folder(id).path.rglob("*") if f.is_file()] for id in ids}
    paths |= {str(ref): [zoo.folder(ref.model).checkpoints.path(ref.epoch)] for ref in refs}
    return {name: sum(path.stat().st_size for path in files) for name, files in paths.items()}


def _dependents(
    by_model: dict[str, list[_sources.Source]],
    ids: Collection[str],
    refs: Collection[CheckpointRef],
) -> dict[str, str]:
    """Models that come of these and are none of them, and how."""
    going, checkpoints = set(ids), set(refs)
    dependents: dict[str, str] = {}
    for id, of_model in by_model.items():
        for source in of_model if id not in going else ():
            if source.is_of(going, checkpoints) and source.model != id:
                dependents.setdefault(id, f"{_ROLES[source.role]} {source}")
    return dependents


def _refusal(dependents: dict[str, str]) -> str:
    listed = [f"{id} ({how})" for id, how in dependents.items()]
    more = f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
    depend = "model depends" if len(listed) == 1 else "models depend"
    return (
        f"{len(listed)} {depend} on what is to be removed: {', '.join(listed[:_LISTED])}{more}; "
        f"{parameter('with_dependents', True)} removes them, too, and "
        f"{parameter('keep_dependents', True)} keeps them, with all their weights"
    )


def _children_first(by_model: dict[str, list[_sources.Source]], ids: set[str]) -> list[str]:
    ordered: list[str] = []
    waiting = set(ids)
    while waiting:
        needed = {source.model for id in waiting for source in by_model.get(id, ())}
        ready = sorted(waiting - needed) or sorted(waiting)
        ordered += ready
        waiting -= set(ready)
    return ordered


def _gone(
    zoo: Zoo, ids: Collection[str], refs: Collection[CheckpointRef]
) -> frozenset[CheckpointRef]:
    """Every checkpoint that goes, also those whose file alone is there."""
    gone = set(refs)
    for id in ids:
        for file in files.listed(zoo.folder(id).checkpoints.folder):
            if match := re.fullmatch(r"epoch-(\d+)\.(packed|safetensors)", file.name):
                gone.add(CheckpointRef(id, int(match[1])))
    return frozenset(gone)


def _write_ledger(zoo: Zoo, removal: Removal) -> None:
    for id in {*removal.models, *(ref.model for ref in removal.checkpoints)}:
        with suppress(CorruptFile):  # nothing is known of a model whose description is damaged
            _ledger.remember(zoo.path, id)


def _remove_cached(zoo: Path, gone: Collection[CheckpointRef]) -> None:
    """Predictions and features of these checkpoints, and answers of the explorer on their models;
    their key names it."""
    names = set(map(str, gone))
    models = {ref.model for ref in gone}
    for file in (zoo / "cache" / "explorer").glob("*.json"):
        with suppress(CorruptFile):  # as below
            if models.intersection(map(str, files.read_sealed(file).get("key", ()))):
                files.discard(file, root=zoo)
    for file in [file for folder in files.listed(zoo / "cache") for file in _cached_in(folder)]:
        with suppress(CorruptFile):  # then it is computed anew when it is needed
            key = Checkpoint(file, _no_base, marked=False).description.get("key")
            if isinstance(key, list) and names.intersection(map(str, key)):
                files.discard(file, root=zoo)


def _cached_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors")) if folder.is_dir() else []


def _no_base(base: object) -> Checkpoint:
    raise AssertionError("what is cached is stored plain")


def _remove_folder(zoo: Path, folder: Path) -> None:
    """At one blow: it is moved out of `models` first. Raises LeadsOutside and NotWritable."""
    files.check_inside(folder, zoo)
    leftover = zoo / files.temporary_name(folder)
    files.discard(leftover, root=zoo)
    with writing(folder):
        folder.replace(leftover)
    files.sync_folder(folder.parent)
    files.discard(leftover, root=zoo)


def _sweep(zoo: Zoo) -> None:
    """Remove what a killed removal has left behind."""
    for path in filter(files.is_leftover, files.listed(zoo.path)):
        if path.is_dir() and not path.is_symlink():
            files.discard(path, root=zoo.path)
    for id in _ledger.ids(zoo.path):
        folder = zoo.folder(id)
        if folder.exists and folder.result():
            with suppress(LeadsOutside):
                folder.drop([])
