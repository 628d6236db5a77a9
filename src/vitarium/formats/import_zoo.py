"""Bring a folder of someone else's models into a zoo; the formats are in `importers/`."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vitarium.blueprint import Imported, ImportedSpec
from vitarium.core import files, registry
from vitarium.core.config import InvalidConfig
from vitarium.core.errors import (
    CorruptFile,
    IncompatibleWeights,
    InvalidInput,
    NotReadable,
    UntrustedFile,
)
from vitarium.core.file_faults import reading
from vitarium.core.filenames import user_path
from vitarium.core.parameters import parameter
from vitarium.core.printable import encodable
from vitarium.core.progress import SILENT, Progress
from vitarium.formats._weight_checks import check_weights, expected_shapes, read_epoch
from vitarium.formats.base import ForeignEpoch, ForeignModel
from vitarium.formats.weights import fingerprint
from vitarium.zoo import About, ModelFolder, Zoo
from vitarium.zoo.lock import held

_TEXTS = ("name", "stage", "parent", "settings", "classes", "where", "notes")


@dataclass(frozen=True)
class ForeignZoo:
    """What an importer finds; nothing is written yet."""

    importer: str
    source: Path
    models: tuple[ForeignModel, ...]  # parents before their children
    empty: tuple[ForeignModel, ...] = ()
    """Models of which no weights were kept; they are not imported."""

    @property
    def epochs(self) -> int:
        return sum(len(model.epochs) for model in self.models)


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


def find_models(
    source: str | Path,
    *,
    importer: str | None = None,
    zoo: str | Path | Zoo | None = None,
    **settings: Any,
) -> ForeignZoo:
    """What `import_zoo` would import; importers of what changes models of the zoo need it.

    Raises UnknownName, InvalidConfig, InvalidInput, NotAZoo and NotReadable.
    """
    path = user_path(source)
    with reading(path):
        if path.is_dir():
            files.listed(path)
        name = importer or _recognized(path, settings)
        section = registry.choose("importer", name, **settings)
        models = parents_first(  # names that UTF-8 can encode: files and JSON may have others
            _with_fitting_classes(
                replace(model, **{name: encodable(getattr(model, name)) for name in _TEXTS})
            )
            for model in section(path, *_zoos(section, zoo))
        )
    for model in models:
        _imported(name, model, "")  # what is wrong with one is found before any is written
    with_weights = tuple(model for model in models if _last(model))
    if not with_weights:
        why = "there is no model with weights in it" if path.exists() else "it does not exist"
        raise InvalidInput(f"{path} cannot be imported as {name}: {why}")
    empty = tuple(model for model in models if not _last(model))
    return ForeignZoo(name, path, with_weights, empty)


def _zoos(importer: registry.Section, zoo: str | Path | Zoo | None) -> list[Zoo]:
    """The zoo, where the importer needs it."""
    if not importer.plugin.facts["needs_zoo"]:
        return []
    if zoo is None:
        what = f"{importer.name} changes models of a zoo, and none is named"
        raise InvalidInput(f"{what}: {parameter('zoo', 'DIR')}")
    return [Zoo.open(zoo)]


def _with_fitting_classes(model: ForeignModel) -> ForeignModel:
    """Without names of outputs that are more, or fewer, than these, and a note that says so."""
    if len(model.classes) in (0, model.num_outputs):
        return model
    note = f"its {len(model.classes)} class names are left out: it has {model.num_outputs} outputs"
    return replace(model, classes=(), notes=(*model.notes, note))


def parents_first(models: Iterable[ForeignModel]) -> list[ForeignModel]:
    """The models in an order in which each stands after its parent, else as they come. Raises
    InvalidInput for two of one name, and for models that descend from themselves."""
    waiting: dict[str, ForeignModel] = {}
    for model in models:
        if model.name in waiting:
            raise InvalidInput(f"two models are called '{model.name}'; give one another name")
        waiting[model.name] = model
    ordered: list[ForeignModel] = []
    while waiting:
        ready = [model for model in waiting.values() if model.parent not in waiting]
        if not ready:
            raise InvalidInput(f"these models descend from one another: {', '.join(waiting)}")
        ordered.extend(waiting.pop(model.name) for model in ready)
    return ordered


def _recognized(source: Path, settings: Mapping[str, Any]) -> str:
    """The one importer whose format it is; a table makes it that of tables, whatever else is there.
    Raises InvalidInput where there is none, or several."""
    plugins = registry.plugins("importer").values()
    if settings.get("table") is not None and source.exists():
        detected = [plugin for plugin in plugins if "table" in plugin.config.model_fields]
    else:
        detected = [plugin for plugin in plugins if plugin.facts["detects"](source)]
    specific = [plugin for plugin in detected if not plugin.facts["fallback"]]
    names = [plugin.name for plugin in specific or detected]
    if len(names) == 1:
        return names[0]
    if names:
        several = f"several formats: {', '.join(names)}"
        how = parameter("importer", "NAME")
        raise InvalidInput(f"{source} may be of {several}; name one: {how}")
    if not source.exists():
        raise InvalidInput(f"{source} does not exist")
    known = "".join(f"\n  {plugin.name}: {plugin.summary}" for plugin in plugins)
    how = parameter("importer", "NAME")
    why = f"is in no known format; if it is in one of these, name it ({how}):"
    raise InvalidInput(f"{source} {why}{known}")


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


def _last(model: ForeignModel) -> ForeignEpoch | None:
    """With weights."""
    return next((epoch for epoch in reversed(model.epochs) if epoch.load), None)


def _spec(importer: str, model: ForeignModel, parent: str | None, zoo: Zoo) -> ImportedSpec:
    last = _last(model)
    assert last  # find_models leaves out the others
    if model.base:
        parent = zoo.find(model.base.model)
    parent_epoch = model.base.epoch if model.base else model.parent_epoch if parent else None
    if parent and parent_epoch is None:
        parent_epoch, _ = zoo.folder(parent).checkpoint()
    imported = _imported(importer, model, fingerprint(read_epoch(model, last, None)))
    return ImportedSpec(
        stage=model.stage, parent=parent, parent_epoch=parent_epoch, imported=imported
    )


def _imported(importer: str, model: ForeignModel, weights: str) -> Imported:
    """Raises InvalidConfig that names the model and the factor which is no plain value."""
    values = {
        "source": importer,
        "name": model.name,
        "weights": weights,
        "architecture": model.architecture,
        "head": model.head,
        "settings": dict(model.settings),
        "initial_epoch": model.initial_epoch,
    }
    try:
        return Imported.read(values)
    except InvalidConfig as error:
        raise InvalidConfig(error.problems, f"{model.named} cannot be imported:") from None
