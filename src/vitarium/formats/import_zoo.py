"""Bring a folder of someone else's models into a zoo; the formats are in `importers/`."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitarium.blueprint import Imported, ImportedSpec
from vitarium.core import files, registry
from vitarium.core.config import InvalidConfig
from vitarium.core.devices import meta_device
from vitarium.core.errors import IncompatibleWeights, InvalidInput
from vitarium.core.file_faults import reading
from vitarium.core.printable import encodable
from vitarium.core.progress import SILENT, Progress
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
    listener: Listener = lambda event: None,
    **settings: Any,
) -> list[str]:
    """Bring foreign models into a zoo, every epoch with its metrics, weights bit for bit. Importing
    again skips what is there and resumes. No more than one checkpoint is in memory at a time.

    Args:
        source: the folder or file to import, or what `find_models` gave for it.
        zoo: where to; made if it is not there.
        importer: the format, see `vitarium plugins importer`; None: the one that recognizes it.
        orphans: import models whose parent is missing without a parent, instead of an error.
        wait: until another process that writes into the zoo is done, instead of giving up.
        progress: counts epochs; the task is the model's name.
        listener: is called after each model.

    Returns the ids, parents first. Raises UnknownName, InvalidConfig and InvalidInput before
    anything is written; ZooInUse; UntrustedFile, CorruptFile and IncompatibleWeights for weights
    that cannot be read, after what came before them is in the zoo.
    """
    if isinstance(source, ForeignZoo):
        foreign = source
    else:
        foreign = find_models(source, importer=importer, **settings)
    names = {model.name for model in foreign.models}
    outside = {m.parent: m.name for m in foreign.models if m.parent and m.parent not in names}
    ids = _imported_before(zoo, foreign.importer) if outside else {}
    for parent, child in outside.items():
        if not orphans and parent not in ids:
            raise InvalidInput(
                f"{child} descends from {parent}, which is neither in {foreign.source} nor in the "
                "zoo; import it first, or let such models have no parent with --orphans"
            )
    opened = zoo if isinstance(zoo, Zoo) else Zoo.create(zoo)
    done = 0
    with held(opened.path, wait=wait):
        for model in foreign.models:
            spec = _spec(foreign.importer, model, ids.get(model.parent or ""), opened)
            new = 0
            for is_new in _write_epochs(model, spec, opened.folder(spec.id)):
                done, new = done + 1, new + is_new
                progress.step(model.name, done, foreign.epochs)
            ids[model.name] = spec.id
            listener(ModelImported(model, spec.id, bool(new)))
    opened.models()  # leaves the index up to date
    return [ids[model.name] for model in foreign.models]


def find_models(source: str | Path, *, importer: str | None = None, **settings: Any) -> ForeignZoo:
    """What `import_zoo` would import. Raises UnknownName, InvalidConfig, InvalidInput and
    NotReadable."""
    path = Path(source)
    with reading(path):
        if path.is_dir():
            files.listed(path)
        name = importer or _recognized(path)
        section = registry.choose("importer", name, **settings)
        models = parents_first(  # names that UTF-8 can encode: files and JSON may have others
            replace(model, **{name: encodable(getattr(model, name)) for name in _TEXTS})
            for model in section(path)
        )
    for model in models:
        _imported(name, model, "")  # what is wrong with one is found before any is written
    with_weights = tuple(model for model in models if _last(model))
    if not with_weights:
        why = "there is no model with weights in it" if path.exists() else "it does not exist"
        raise InvalidInput(f"{path} cannot be imported as {name}: {why}")
    empty = tuple(model for model in models if not _last(model))
    return ForeignZoo(name, path, with_weights, empty)


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


def _recognized(source: Path) -> str:
    """The one importer whose format it is. Raises InvalidInput where there is none, or several."""
    plugins = registry.plugins("importer").values()
    names = [plugin.name for plugin in plugins if plugin.facts["detects"](source)]
    if len(names) == 1:
        return names[0]
    if names:
        several = f"several formats: {', '.join(names)}"
        raise InvalidInput(f"{source} may be of {several}; name one with --importer")
    if not source.exists():
        raise InvalidInput(f"{source} does not exist")
    known = "".join(f"\n  {plugin.name}: {plugin.summary}" for plugin in plugins)
    why = "is of no format that is known; if it is one of these, name it with --importer:"
    raise InvalidInput(f"{source} {why}{known}")


def _imported_before(zoo: str | Path | Zoo, importer: str) -> dict[str, str]:
    """Name -> id of what the same importer brought into the zoo before."""
    if not isinstance(zoo, Zoo):
        if not files.exists(Path(zoo) / "zoo.json"):
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
    expected = None
    if spec.imported.architecture is not None:
        with meta_device():
            built = spec.imported.build(model.num_outputs)
        expected = {name: tensor.shape for name, tensor in built.state_dict().items()}
    if folder.exists:
        folder.sweep()
    existing = {epoch.number for epoch in folder.epochs()}
    complete = folder.result() is not None
    for epoch in model.epochs:
        new = not complete and epoch.number not in existing
        if new:
            weights = _read_epoch(model, epoch, expected) if epoch.load else None
            if not folder.exists:  # once it is known that there is something to keep
                folder.begin(spec, About(model.num_outputs, model.classes, {}))
            folder.commit(epoch.number, epoch.metrics, weights, None)
        yield new
    if model.finished and not complete:
        folder.finish("finished")


def _last(model: ForeignModel) -> ForeignEpoch | None:
    """With weights."""
    return next((epoch for epoch in reversed(model.epochs) if epoch.load), None)


def _spec(importer: str, model: ForeignModel, parent: str | None, zoo: Zoo) -> ImportedSpec:
    last = _last(model)
    assert last  # find_models leaves out the others
    parent_epoch = model.parent_epoch if parent else None
    if parent and parent_epoch is None:
        parent_epoch, _ = zoo.folder(parent).checkpoint()
    imported = _imported(importer, model, fingerprint(_read_epoch(model, last, None)))
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


def _read_epoch(
    model: ForeignModel, epoch: ForeignEpoch, expected: Mapping[str, torch.Size] | None
) -> dict[str, Tensor]:
    """An epoch's weights, each tensor with memory of its own. Raises IncompatibleWeights where they
    do not fit the `expected` shapes (None: not checked), and what `epoch.load` raises."""
    assert epoch.load
    weights = dict(epoch.load())
    if expected is not None and (misfit := _misfit(weights, expected)):
        what = "these weights do not fit the architecture that it is said to have"
        raise IncompatibleWeights(f"{model.named}, epoch {epoch.number}: {what}: {misfit}")
    storages: set[int] = set()
    for name, tensor in weights.items():
        # tied tensors share memory in a pickle, but safetensors writes each by itself
        storage = tensor.untyped_storage().data_ptr()
        weights[name] = tensor.clone() if storage in storages else tensor
        storages.add(storage)
    return weights


def _misfit(weights: Mapping[str, Tensor], expected: Mapping[str, torch.Size]) -> str | None:
    missing, unknown = expected.keys() - weights.keys(), weights.keys() - expected.keys()
    for names, problem in ((sorted(missing), "missing"), (sorted(unknown), "unknown")):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            return f"{', '.join(names[:3])}{more} {problem}"
    for name, shape in sorted(expected.items()):
        if weights[name].shape != shape:
            return f"{name} is {list(weights[name].shape)}, not {list(shape)}"
    return None
