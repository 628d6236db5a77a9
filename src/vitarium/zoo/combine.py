"""A part of a zoo as a zoo of its own, and several zoos as one."""

import os
import tarfile
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from vitarium.core import files
from vitarium.core.errors import InvalidInput, WriteFault
from vitarium.core.file_faults import writing
from vitarium.core.filenames import user_path
from vitarium.core.progress import SILENT, Progress
from vitarium.zoo import records, studies, transfer
from vitarium.zoo._merge_plan import MergePlan, is_same, merge_plan, preferring
from vitarium.zoo._sources import parents_first, sources, with_ancestors
from vitarium.zoo.listing import select
from vitarium.zoo.lock import held
from vitarium.zoo.model import ModelNames
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
    """Copy models of a zoo as a zoo of its own, with their measured numbers, tags and blueprints;
    an archive of all models has the pages of studies, too.

    Every file is compared with its checksums on the way. Interrupted, the same call goes on; called
    again later, it brings the archive up to date.

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
    zoo, out = Zoo.open(zoo), user_path(out)
    ids = [zoo.find(name) for name in select(zoo, models, where)]
    if not ids and models is not None:
        raise InvalidInput(f"{zoo.path}: there is no model to copy; name some, or none for all")
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
        begun = copy.ids()
        plan = merge_plan([zoo], copy, models=ids)
        for id, text in plan.conflicts.items():
            raise InvalidInput(f"model {id}: {text}; choose a new folder, or use merge_zoos")
        _copy(plan, ids, copy, progress)
        for id in begun:  # by an earlier archive, perhaps of what has been changed since
            transfer.pack_as_in(zoo, copy, id)
            transfer.copy_annotations(zoo, copy, id)
        absent = {source.model for id in ids for source in sources(zoo.folder(id).factors())}
        transfer.copy_ledger(zoo, copy, sorted(absent - set(ids)))
        transfer.copy_records(zoo, copy, ids)
        transfer.copy_texts(zoo, copy)
        if studies.have_all(zoo, set(ids)):
            transfer.copy_studies(zoo, copy)
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
    """Copy all models of zoos into one, with measured numbers, tags, notes and blueprints. Pages of
    studies are about one of the zoos, and stay there.

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
    path, favored = _path(into), None if prefer is None else _path(prefer)
    if not (zoos := list(zoos)):
        raise InvalidInput("name the zoos that are to become one")
    by_path = {os.path.realpath(zoo.path): zoo for zoo in map(Zoo.open, zoos)}
    opened = [zoo for zoo in by_path.values() if not is_same(zoo.path, path)]

    def planned() -> MergePlan:
        target = Zoo.open(path) if files.exists(path / "zoo.json") else None
        plan = merge_plan(opened, target)
        lenient = dry_run and favored is None
        return plan if lenient else preferring(plan, opened, target, favored)

    plan = planned()
    if dry_run:
        return ZooMerge(Zoo(path), plan.copied, plan.present, plan.conflicts, 0)
    with ExitStack() as stack:
        target, count = Zoo.create(path), 0
        _hold(stack, target, opened)
        plan = planned()  # anew: another process may have changed a zoo until it was held
        replaced = [id for id in plan.copied if id in plan.conflicts]
        records.remove(target.path, replaced)  # numbers of other bits
        _copy(plan, (id for zoo in opened for id in zoo.ids()), target, progress)
        for zoo in opened:
            same = [
                id
                for id in zoo.ids()
                if id in plan.chosen and (plan.chosen[id] is zoo or id not in plan.conflicts)
            ]
            for id in same:
                transfer.join_annotations(zoo, target, id)
            transfer.copy_ledger(zoo, target, ())
            count += transfer.copy_records(zoo, target, same)
            transfer.copy_texts(zoo, target)
    return ZooMerge(target, plan.copied, plan.present, plan.conflicts, count)


def _path(zoo: Zoo | str | Path) -> Path:
    return zoo.path if isinstance(zoo, Zoo) else user_path(zoo)


def _copy(plan: MergePlan, ids: Iterable[str], target: Zoo, progress: Progress) -> None:
    """Copy what is to be copied of these models."""
    order = plan.in_order(ids)
    for done, id in enumerate(order):
        progress.step("models", done, len(order))
        if id in plan.copied:
            transfer.copy_model(plan.chosen[id], target, id, plan.others[id])
    progress.step("models", len(order), len(order))


def _hold(stack: ExitStack, target: Zoo, sources: Iterable[Zoo]) -> None:
    """Let nobody else write into these zoos; one that nobody can write need not be held."""
    stack.enter_context(held(target.path))
    for zoo in sources:
        with suppress(WriteFault):
            stack.enter_context(held(zoo.path))


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
