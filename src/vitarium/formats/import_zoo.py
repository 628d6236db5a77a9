"""Bring a folder of someone else's models into a zoo; the formats are in `importers/`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitarium.blueprint import ImportedSpec
from vitarium.core import files
from vitarium.core.errors import (
    CorruptFile,
    IncompatibleWeights,
    InvalidInput,
    NotReadable,
    UntrustedFile,
)
from vitarium.core.filenames import user_path
from vitarium.core.parameters import parameter
from vitarium.core.progress import SILENT, Progress
from vitarium.formats._weight_checks import check_weights, expected_shapes, read_epoch
from vitarium.formats.base import ForeignModel
from vitarium.formats.foreign_zoo import ForeignZoo, find_models, imported_as, last_with_weights
from vitarium.formats.weights import fingerprint
from vitarium.zoo import About, ModelFolder, Zoo
from vitarium.zoo.lock import held


@dataclass(frozen=True)
class ModelImported:
    """All of a foreign model is in the zoo, as `id`."""

    model: ForeignModel
    id: str
    new: bool  # whether any epoch was written now


Listener = Callable[[ModelImported], None]


def import_zoo(
    source: str | Path | ForeignZoo,
    zoo: str | Path | Zoo,
    *,
    importer: str | None = None,
    orphans: bool = False,
    wait: bool = False,
    progress: Progress = SILENT,
    listener: Listener | None = None,
    **settings: Any,
) -> list[str]:
    """Bring foreign models into a zoo, every epoch with its metrics, weights bit for bit. Importing
    again skips what is there and resumes. No more than one checkpoint is in memory at a time.

    Args:
        source: the folder or file to import, or what `find_models` gave for it.
        zoo: where to; made if it is not there.
        importer: the format, see `vitarium plugins importer`; None: the one that recognizes it,
            with a setting `table` the one that reads tables.
        orphans: import models whose parent is missing without a parent, instead of an error.
        wait: until another process that writes into the zoo is done, instead of giving up.
        progress: counts epochs; the task is the model's name.
        listener: is called after each model.

    Returns the ids, parents first. Raises UnknownName, InvalidConfig, InvalidInput, and what
    `check_weights` raises, before anything is written; ZooInUse; UntrustedFile, CorruptFile and
    IncompatibleWeights for weights that turn out to be unreadable later: the models before are then
    in the zoo, and of that model there is nothing.
    """
    if isinstance(source, ForeignZoo):
        foreign = source
    else:
        foreign = find_models(source, importer=importer, zoo=zoo, **settings)
    names = {model.name for model in foreign.models}
    outside = {m.parent: m.name for m in foreign.models if m.parent and m.parent not in names}
    ids = _imported_before(zoo, foreign.importer) if outside else {}
    for parent, child in outside.items():
        if not orphans and parent not in ids:
            raise InvalidInput(
                f"{child} descends from {parent}, which is neither in {foreign.source} nor in the "
                f"zoo; import it first, or import such models without a parent: "
                f"{parameter('orphans', True)}"
            )
    check_weights(foreign.models, progress)
    opened = zoo if isinstance(zoo, Zoo) else Zoo.create(zoo)
    done = 0
    with held(opened.path, wait=wait):
        for model in foreign.models:
            spec = _spec(foreign.importer, model, ids.get(model.parent or ""), opened)
            new, folder = 0, opened.folder(spec.id)
            with _removed_on_failure(folder):
                for is_new in _write_epochs(model, spec, folder):
                    done, new = done + 1, new + is_new
                    progress.step(model.name, done, foreign.epochs)
            ids[model.name] = spec.id
            if listener:
                listener(ModelImported(model, spec.id, bool(new)))
    opened.models()  # leaves the index up to date
    return [ids[model.name] for model in foreign.models]


def _imported_before(zoo: str | Path | Zoo, importer: str) -> dict[str, str]:
    """Name -> id of what the same importer brought into the zoo before."""
    if not isinstance(zoo, Zoo):
        if not files.exists(user_path(zoo) / "zoo.json"):
            return {}
        zoo = Zoo.open(zoo)
    return {
        spec.imported.name: spec.id
        for spec in map(zoo.spec, zoo.ids())
        # what was merged of imported models has the origin of one of them
        if isinstance(spec, ImportedSpec) and not spec.operator and spec.imported.source == importer
    }


def _write_epochs(model: ForeignModel, spec: ImportedSpec, folder: ModelFolder) -> Iterator[bool]:
    """Write the epochs that are missing; yields for each epoch whether it was."""
    expected = expected_shapes(model)
    if folder.exists:
        folder.sweep()
    existing = {epoch.number for epoch in folder.epochs()}
    complete = folder.result() is not None
    for epoch in model.epochs:
        new = not complete and epoch.number not in existing
        if new:
            weights = read_epoch(model, epoch, expected) if epoch.load else None
            if not folder.exists:  # once it is known that there is something to keep
                folder.begin(spec, About(model.num_outputs, model.classes, {}))
            folder.commit(epoch.number, epoch.metrics, weights, None)
        yield new
    if model.finished and not complete:
        folder.finish("finished")


@contextmanager
def _removed_on_failure(folder: ModelFolder) -> Iterator[None]:
    """Remove a model that was begun here and whose weights turn out to be unusable: nothing would
    ever complete it. What another import began stays, and so does all on a full disk: the next
    import takes it up."""
    begun = not folder.exists
    try:
        yield
    except (CorruptFile, IncompatibleWeights, InvalidInput, NotReadable, UntrustedFile):
        if begun and folder.exists:
            files.remove(folder.path / "model.json", root=folder.path.parent.parent)
            files.discard(folder.path, root=folder.path.parent.parent)
        raise


def _spec(importer: str, model: ForeignModel, parent: str | None, zoo: Zoo) -> ImportedSpec:
    last = last_with_weights(model)
    assert last  # find_models leaves out the others
    if model.base:
        parent = zoo.find(model.base.model)
    parent_epoch = model.base.epoch if model.base else model.parent_epoch if parent else None
    if parent and parent_epoch is None:
        parent_epoch, _ = zoo.folder(parent).checkpoint()
    imported = imported_as(importer, model, fingerprint(read_epoch(model, last, None)))
    return ImportedSpec(
        stage=model.stage, parent=parent, parent_epoch=parent_epoch, imported=imported
    )
