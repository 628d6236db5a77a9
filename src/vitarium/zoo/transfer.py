"""Copies models from one zoo into another, bit for bit, each at one blow, compared by checksums.

A packed checkpoint stays as it is where the other zoo has what it builds on; else it is packed anew
there. A model that is there already is not copied again, so an interrupted copy goes on.
"""

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from vitarium.core import files
from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.errors import CorruptFile, FileFault
from vitarium.core.file_faults import reading, writing
from vitarium.zoo import _ledger, annotations, records, studies
from vitarium.zoo._format import packing
from vitarium.zoo._model_files import EPOCH_FILES, Epoch, read_description
from vitarium.zoo._rebase import built_on, rebase
from vitarium.zoo._retired import replace_model
from vitarium.zoo.checkpoint import Checkpoint
from vitarium.zoo.lock import bases_stay
from vitarium.zoo.model_folder import ModelFolder
from vitarium.zoo.zoo import Zoo

_CHUNK_BYTES = 1 << 20
_TEXTS = ("model.json", "epochs.jsonl", "result.json", "records.jsonl", annotations.FILE)


def contents(folder: ModelFolder) -> dict[int, str]:
    """What a model's checkpoints hold, by epoch, in whatever format. Raises CorruptFile."""
    kept_epochs = [epoch.number for epoch in folder.epochs() if epoch.checkpoint]
    checkpoints = {number: folder.checkpoint(number)[1] for number in kept_epochs}
    for number in kept_epochs:  # lines of format 1 name the bytes of a file
        path = folder.checkpoints.path(number)
        if path.suffix != ".packed" and not (opened := folder.open(number)).is_sealed:
            checkpoints[number] = opened.content
    return checkpoints


def contents_ever(zoo: Zoo, id: str) -> dict[int, str]:
    """What the checkpoints of a model hold, and what those held that were removed, by epoch."""
    folder, removed = zoo.folder(id), _ledger.contents(zoo.path, id)
    if not folder.exists:
        return removed
    if read_description(folder.path)["format"] == 1:  # which names the bytes of a file
        return contents(folder)
    return removed | contents(folder)


def copy_model(source: Zoo, target: Zoo, id: str, others: Iterable[Zoo] = ()) -> None:
    """Copy a model, in the place of one that is there already.

    Args:
        others: zoos that have the model with the same bits; checkpoints come along that they alone
            keep. Those of the model that is replaced do, too, if its bits are the same.

    What builds on weights that are replaced by other bits is packed anew before. Raises
    CorruptFile where anything of it is damaged, DiskFull, NotWritable and LeadsOutside; then the
    other zoo has all of the model or nothing.
    """
    folder, place = source.folder(id), target.path / "models" / id
    staging = target.path / files.temporary_name(place)
    _read_texts(folder)
    with writing(place):
        place.parent.mkdir(exist_ok=True)
    files.check_inside(place.parent, target.path)
    files.discard(staging, root=target.path)
    held_by = _holders(id, source, [*others, target])
    for name in _TEXTS:
        if files.exists(folder.path / name):
            _copy_file(folder.path / name, staging / name)
    if any(holder is not folder for _, holder in held_by):
        files.write_lines(staging / "epochs.jsonl", [line.line() for line, _ in held_by])
    for kind in EPOCH_FILES:
        for file in sorted(folder.path.glob(f"{kind}-*.safetensors")):
            _copy_file(file, staging / file.name)
    for line, holder in held_by:
        if line.checkpoint:
            _copy_checkpoint(holder, line.number, target, staging / "checkpoints")
    with bases_stay(target.path):
        if files.exists(place):
            _rebase_others(target, id, {line.number: line.checkpoint for line, _ in held_by})
        replace_model(target.path, id, staging)
    known, remembered = contents_ever(source, id), _ledger.contents(target.path, id)
    if any(known.get(epoch, content) != content for epoch, content in remembered.items()):
        _ledger.forget(target.path, id)  # which was of other bits
    pack_as_in(source, target, id)


def _holders(id: str, source: Zoo, others: Iterable[Zoo]) -> list[tuple[Epoch, ModelFolder]]:
    """The epochs of a model, and who keeps the weights of each: itself, or another of its bits.

    Imported from other files, that one may have epochs of which this one knows nothing.
    """
    folder, known = source.folder(id), contents_ever(source, id)
    stored = contents(folder)
    held_by = {line.number: (line, folder) for line in folder.epochs()}
    for other in (zoo for zoo in others if zoo.folder(id).exists):
        by_epoch, holder = contents_ever(other, id), other.folder(id)
        if any(known.get(epoch, content) != content for epoch, content in by_epoch.items()):
            continue
        are_complete = folder.status == holder.status != "training"
        for line in holder.epochs():
            is_expected = line.number in held_by or are_complete
            if line.checkpoint and is_expected and line.number not in stored:
                stored[line.number] = known[line.number] = by_epoch[line.number]
                own, _ = held_by.get(line.number, (line, holder))
                held_by[line.number] = replace(own, checkpoint=line.checkpoint), holder
    return [held_by[number] for number in sorted(held_by)]


def _copy_checkpoint(holder: ModelFolder, epoch: int, target: Zoo, to: Path) -> None:
    checkpoint = holder.open(epoch)
    checkpoint.check_stored()
    if _stands_in(target, holder.path.name, checkpoint):
        _copy_file(checkpoint.path, to / checkpoint.path.name)
    else:
        name = holder.checkpoints.plain(epoch).name
        pieces, _ = packing.plain(checkpoint.state_dict(), holder.checkpoints.notes(epoch))
        files.write(to / name, pieces)


def _rebase_others(zoo: Zoo, id: str, lines: Mapping[int, str | None]) -> None:
    """Let nothing build on checkpoints of a model that are about to be other bits."""
    before = {e.number: e.checkpoint for e in zoo.folder(id).epochs() if e.checkpoint}
    other_bits = [number for number, content in before.items() if lines.get(number) != content]
    gone = {CheckpointRef(id, number) for number in other_bits}
    for ref in tuple(built_on(zoo, gone, {id})):
        rebase(zoo.folder(ref.model), ref.epoch, gone)


def pack_as_in(source: Zoo, target: Zoo, id: str) -> None:
    """Pack those checkpoints of a copy that are packed where it is from."""
    folder, copy = source.folder(id), target.folder(id)
    for epoch in (epoch.number for epoch in copy.epochs() if epoch.checkpoint):
        if folder.checkpoints.path(epoch).suffix == ".packed":
            copy.pack(epoch)


def copy_ledger(source: Zoo, target: Zoo, ids: Collection[str]) -> None:
    """Let the other zoo remember models that were removed, or that `ids` are without.

    Of what it has itself, or remembers, no other bits are written down.
    """
    for id in ids:
        for entry in (source.folder(id).path, source.path / _ledger.FOLDER / id):
            if id not in target and files.exists(entry / "model.json"):
                _ledger.remember(target.path, id, source=entry)
    for id in _ledger.ids(source.path):
        fresh, known = _ledger.contents(source.path, id), contents_ever(target, id)
        is_same = all(known.get(epoch, content) == content for epoch, content in fresh.items())
        if is_same and not fresh.keys() <= known.keys():
            _ledger.remember(target.path, id, source=source.path / _ledger.FOLDER / id)


def copy_records(source: Zoo, target: Zoo, ids: Collection[str]) -> int:
    """Copy numbers of these models, of pairs where both are; how many there were not yet."""
    present = set(records.of(target.path, ids))
    others = {*ids, None}
    fresh = [r for r in records.of(source.path, ids) if r.model in ids and r.other in others]
    fresh = [record for record in fresh if record not in present]
    records.add(target.path, fresh)
    return len(fresh)


def copy_texts(source: Zoo, target: Zoo) -> None:
    """Copy blueprints, and the names under which stages are shown."""
    for file in files.listed(source.path / "blueprints"):
        copy = target.path / "blueprints" / file.name
        if not files.is_leftover(file) and not files.exists(copy):
            _copy_file(file, copy)
    labels = annotations.stage_labels(target.path)
    combined = annotations.stage_labels(source.path) | labels
    if combined != labels:
        stages = {"stages": combined}
        files.write_sealed(target.path / annotations.STAGES, stages, root=target.path)


def copy_studies(source: Zoo, target: Zoo) -> None:
    """Copy pages of studies and recovered lineages, those of the same names again."""
    for file in [*studies.pages(source.path), *studies.json_files(source.path)]:
        copy = target.path / studies.FOLDER / file.name
        if not files.exists(copy) or files.digest(copy) != files.digest(file):
            _copy_file(file, copy)


def copy_annotations(source: Zoo, target: Zoo, id: str) -> None:
    """Let a model have the tags and the note that it has in another zoo, and no others."""
    there, here = (annotations.read(zoo.folder(id).path) for zoo in (source, target))
    if there != here:
        annotations.write(target.folder(id).path, there)


def join_annotations(source: Zoo, target: Zoo, id: str) -> None:
    """Add the tags and the note of a model in one zoo to those that it has in the other."""
    added, present = (annotations.read(zoo.folder(id).path) for zoo in (source, target))
    note = present.note
    if added.note and added.note not in note.split("\n"):
        note = "\n".join(filter(None, (note, added.note)))
    joined = replace(present, tags=tuple(dict.fromkeys(present.tags + added.tags)), note=note)
    if joined != present:
        annotations.write(target.folder(id).path, joined)


def _read_texts(folder: ModelFolder) -> None:
    """Raises CorruptFile where one of them is not as it was written."""
    folder.spec(), folder.about(), folder.epochs(), folder.result(), folder.records()
    annotations.read(folder.path)
    if companions := folder.companions():
        companions.check_stored()


def _stands_in(target: Zoo, id: str, checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint's file can be read in the other zoo: what it builds on is there, too."""
    base = checkpoint.base
    if base is None or base.model == id:
        return True
    if not re.fullmatch("[0-9a-f]{12}", base.model):
        return False
    with suppress(CorruptFile, FileFault):
        stored = target.folder(base.model).checkpoints.base(base.epoch)
        return stored.content == base.content
    return False


def _copy_file(source: Path, target: Path) -> None:
    """Copy a file, and compare what was written with what was read. Raises CorruptFile."""
    digest = hashlib.sha256()

    def pieces() -> Iterator[bytes]:
        with reading(source), source.open("rb") as file:
            while piece := file.read(_CHUNK_BYTES):
                digest.update(piece)
                yield piece

    files.write(target, pieces())
    if files.digest(target) != digest.hexdigest():
        raise CorruptFile(target, f"it was just written, and is not what {source} holds")
