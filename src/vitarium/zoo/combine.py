"""A part of a zoo as a zoo of its own, and several zoos as one."""

import os
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from vitarium.core import files
from vitarium.core.errors import InvalidInput, WriteFault
from vitarium.core.file_faults import writing
from vitarium.core.parameters import parameter
from vitarium.core.progress import SILENT, Progress
from vitarium.zoo import records, transfer
from vitarium.zoo._sources import parents_first, sources, with_ancestors
from vitarium.zoo.listing import select
from vitarium.zoo.lock import held
from vitarium.zoo.model import ModelNames
from vitarium.zoo.model_folder import ModelFolder
from vitarium.zoo.zoo import Zoo

TARS: Mapping[str, str] = {".tar": "w", ".tar.gz": "w:gz", ".tgz": "w:gz"}
_OTHER_ARCHIVES = {".zip", ".gz", ".bz2", ".xz", ".zst", ".7z"}
"""How names of archives in one file end, and how they are opened."""


@dataclass(frozen=True)
class ZooMerge:
    """What became of zoos that were made one."""

    zoo: Zoo
    copied: Mapping[str, Path]
    """The models that were copied, by id: from which zoo."""
    present: tuple[str, ...]
    """Ids of models that were there already, with the same bits."""
    conflicts: Mapping[str, str]
    """Models that are in several zoos with other bits, by id: where, and in which epochs."""
    records: int
    """Measured numbers that came along."""


def archive(
    zoo: Zoo | str | Path,
    models: ModelNames | None = None,
    *,
    out: str | Path,
    where: str = "",
    ancestors: bool = True,
    progress: Progress = SILENT,
) -> Path:
    """Copy models of a zoo as a zoo of its own, with their measured numbers, tags and blueprints.

    Every file is compared with its checksums on the way. Interrupted, the same call goes on.

    Args:
        models: ids or beginnings of them; None: all.
        out: a folder that is new or empty, or a file whose name ends in .tar, .tar.gz or .tgz.
        where: an SQL condition, see `vitarium.zoo.listing.listing`.
        ancestors: with the models that these come of (parents, ingredients, teachers). Without
            them, what builds on them is packed anew, and the new zoo knows what they were.
        progress: is told of each model.

    Returns `out`. Raises InvalidInput, UnknownName, NotAZoo, ZooInUse, CorruptFile, NotWritable and
    DiskFull.
    """
    zoo, out = Zoo.open(zoo), Path(out)
    ids = [zoo.find(name) for name in select(zoo, models, where)]
    ids = with_ancestors(zoo, ids) if ancestors else parents_first(zoo, ids)
    ending = next((end for end in TARS if out.name.endswith(end)), None)
    if ending is None and out.suffix in _OTHER_ARCHIVES:
        fault = f"{out}: an archive is a folder, or a file that ends in {', '.join(TARS)}"
        raise InvalidInput(f"{fault}; choose another name")
    folder = out if ending is None else out.with_name(f".{out.name}.tmp")
    with ExitStack() as stack:
        copy = Zoo.create(folder)
        if unexpected := sorted(set(copy.ids()) - set(ids)):
            fault = f"{folder} is a zoo with other models, such as {unexpected[0]}"
            raise InvalidInput(f"{fault}; choose a new folder, or use merge_zoos")
        _hold(stack, copy, [zoo])
        for done, id in enumerate(ids):
            progress.step("models", done, len(ids))
            if id in copy:
                transfer.pack_as_in(zoo, copy, id)
            else:
                transfer.copy_model(zoo, copy, id)
        progress.step("models", len(ids), len(ids))
        absent = {source.model for id in ids for source in sources(zoo.folder(id).factors())}
        transfer.copy_ledger(zoo, copy, sorted(absent - set(ids)))
        transfer.copy_records(zoo, copy, ids)
        transfer.copy_texts(zoo, copy)
    if ending is not None:
        _write_tar(folder, out, TARS[ending])
        files.discard(folder)
    return out


def merge_zoos(
    zoos: Iterable[Zoo | str | Path],
    into: Zoo | str | Path,
    *,
    prefer: Zoo | str | Path | None = None,
    dry_run: bool = False,
    progress: Progress = SILENT,
) -> ZooMerge:
    """Copy all models of zoos into one, with measured numbers, tags, notes and blueprints.

    A model that several zoos have with the same bits is copied once, with every checkpoint that one
    of them keeps. Every file is compared with its checksums on the way. Interrupted, the same call
    goes on.

    Args:
        into: a zoo, or a new or empty folder.
        prefer: of a model with other bits in several zoos, take that of this zoo: one of `zoos`, or
            `into`.
        dry_run: copy nothing; conflicts are reported, not raised.
        progress: is told of each model.

    Raises InvalidInput for models with other bits in several zoos, before anything is copied;
    NotAZoo, ZooInUse, CorruptFile, NotWritable and DiskFull.
    """
    target_path = into.path if isinstance(into, Zoo) else Path(into)
    opened = [zoo for zoo in map(Zoo.open, zoos) if not _is_same(zoo.path, target_path)]
    is_there = files.exists(target_path / "zoo.json")
    present = [Zoo.open(target_path)] if is_there else []
    candidates = _by_model([*present, *opened])
    conflicts = {id: text for id, zoos in candidates.items() if (text := _conflict(id, zoos))}
    chosen = {id: _best(id, zoos) for id, zoos in candidates.items()}
    chosen |= _preferred(conflicts, candidates, prefer, target_path, dry_run=dry_run)
    others = {id: candidates[id] if id not in conflicts else [] for id in chosen}
    copied = {
        id: path
        for id, zoo in chosen.items()
        if (path := _copied_from(id, zoo, others[id], is_present=zoo in present))
    }
    kept_ids = tuple(id for id in chosen if id not in copied)
    if dry_run:
        return ZooMerge(Zoo(target_path), copied, kept_ids, conflicts, 0)
    with ExitStack() as stack:
        target, count = Zoo.create(into), 0
        _hold(stack, target, opened)
        order = [id for zoo in opened for id in parents_first(zoo, zoo.ids())]
        order = _sources_first(dict.fromkeys(order), chosen)
        records.remove(target.path, [id for id in copied if id in conflicts])  # of other bits
        for done, id in enumerate(order):
            progress.step("models", done, len(order))
            if id in copied:
                transfer.copy_model(chosen[id], target, id, others[id])
        progress.step("models", len(order), len(order))
        for zoo in opened:
            same = [id for id in zoo.ids() if chosen[id] is zoo or id not in conflicts]
            for id in same:
                transfer.join_annotations(zoo, target, id)
            transfer.copy_ledger(zoo, target, ())
            count += transfer.copy_records(zoo, target, same)
            transfer.copy_texts(zoo, target)
    return ZooMerge(target, copied, kept_ids, conflicts, count)


def _hold(stack: ExitStack, target: Zoo, sources: Iterable[Zoo]) -> None:
    """Let nobody else write into these zoos; one that nobody can write need not be held."""
    stack.enter_context(held(target.path))
    for zoo in sources:
        with suppress(WriteFault):
            stack.enter_context(held(zoo.path))


def _by_model(zoos: Sequence[Zoo]) -> dict[str, list[Zoo]]:
    candidates: dict[str, list[Zoo]] = {}
    for zoo in zoos:
        for id in zoo.ids():
            candidates.setdefault(id, []).append(zoo)
    return candidates


def _conflict(id: str, zoos: Sequence[Zoo]) -> str:
    """Which zoos have other bits of a model, and in which epochs; "" for the same bits."""
    if len(zoos) == 1:
        return ""
    by_zoo = [transfer.contents(zoo.folder(id)) for zoo in zoos]
    for zoo, stored in zip(zoos[1:], by_zoo[1:], strict=True):
        for first, reference in zip(zoos, by_zoo, strict=True):
            shared = stored.keys() & reference.keys()
            differing = sorted(epoch for epoch in shared if stored[epoch] != reference[epoch])
            if differing:
                epochs = ", ".join(map(str, differing))
                return f"{first.path} and {zoo.path} have other weights of epochs {epochs}"
    return ""


def _best(id: str, zoos: Sequence[Zoo]) -> Zoo:
    """Where it is trained to its end, and most of its epochs are kept; else the first."""

    def completeness(folder: ModelFolder) -> tuple[bool, int, int]:
        epochs = folder.epochs()
        return (
            folder.result() is not None,
            sum(e.checkpoint is not None for e in epochs),
            len(epochs),
        )

    return max(zoos, key=lambda zoo: completeness(zoo.folder(id)))


def _copied_from(id: str, chosen: Zoo, others: Sequence[Zoo], *, is_present: bool) -> Path | None:
    """Where a model is from; of one that is there already, a zoo that keeps more epochs of it."""
    if not is_present:
        return chosen.path
    stored = transfer.contents(chosen.folder(id)).keys()
    more = (zoo.path for zoo in others if not transfer.contents(zoo.folder(id)).keys() <= stored)
    return next(more, None)


def _preferred(
    conflicts: Mapping[str, str],
    candidates: Mapping[str, list[Zoo]],
    prefer: Zoo | str | Path | None,
    target: Path,
    *,
    dry_run: bool,
) -> dict[str, Zoo]:
    """Of models with other bits, the zoo that is preferred. Raises InvalidInput without one."""
    if not conflicts or (dry_run and prefer is None):
        return {}
    first, text = next(iter(conflicts.items()))
    if prefer is None:
        count = f"{len(conflicts)} model{'s' * (len(conflicts) > 1)} with other bits: "
        raise InvalidInput(
            f"{count}{first}: {text}; say which zoo's to keep, {parameter('prefer', 'DIR')}, or "
            "remove the model from one zoo"
        )
    path = prefer.path if isinstance(prefer, Zoo) else Path(prefer)
    chosen = {}
    for id in conflicts:
        zoos = [zoo for zoo in candidates[id] if _is_same(zoo.path, path)]
        if not zoos:
            names = " and ".join(str(zoo.path) for zoo in candidates[id])
            raise InvalidInput(f"model {id} has other bits in {names}, but is not in {path}")
        chosen[id] = zoos[0]
    return chosen


def _sources_first(ids: Iterable[str], chosen: Mapping[str, Zoo]) -> list[str]:
    """The models, none before one that it comes of, wherever that is."""
    ordered: dict[str, None] = {}

    def visit(id: str) -> None:
        waiting = [(id, False)]
        while waiting:
            model, is_ready = waiting.pop()
            if is_ready:
                ordered[model] = None
            elif model not in ordered:
                of_model = sources(chosen[model].folder(model).factors(), chosen)
                waiting.append((model, True))
                waiting += [(each.model, False) for each in of_model if each.model in chosen]

    for id in ids:
        visit(id)
    return list(ordered)


def _is_same(path: Path, other: Path) -> bool:
    return os.path.realpath(path) == os.path.realpath(other)


def _write_tar(folder: Path, out: Path, mode: str) -> None:
    """The folder as the only one in a file, under the file's name; at one blow."""
    beside = out.with_name(files.temporary_name(out))
    name = out.name.removesuffix(".gz").removesuffix(".tar").removesuffix(".tgz")
    with writing(out):
        try:
            with tarfile.open(beside, mode) as tar:  # type: ignore[call-overload]
                tar.add(folder, name, filter=_without_leftovers)
            beside.replace(out)
        finally:
            beside.unlink(missing_ok=True)


def _without_leftovers(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if Path(member.name).name.startswith(".") else member
