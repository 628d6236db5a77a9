"""Bring a folder of someone else's models into a zoo; the formats are in `importers/`."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitarium.blueprint import Imported, ImportedSpec
from vitarium.core import files, registry
from vitarium.core.config import InvalidConfig
from vitarium.core.errors import IncompatibleWeights, InvalidInput
from vitarium.core.file_faults import reading
from vitarium.core.printable import encodable
from vitarium.formats.base import ForeignEpoch, ForeignModel
from vitarium.zoo import About, Zoo
from vitarium.zoo.lock import held


@dataclass(frozen=True)
class Found:
    """What an importer finds; nothing is written yet, and no weights need have been read."""

    importer: str
    source: Path
    models: tuple[ForeignModel, ...]
    """Parents before their children."""
    empty: tuple[ForeignModel, ...] = ()
    """Models of which no weights were kept; they are not imported."""


@dataclass(frozen=True)
class Step:
    """How far an import is: after an epoch, or (`epoch` None) after all of a model."""

    model: ForeignModel
    id: str
    epoch: int | None
    new: bool
    """Whether it was brought now; False: it was in the zoo already."""


Report = Callable[[Step], None]


def import_zoo(
    source: str | Path,
    zoo: str | Path | Zoo,
    *,
    importer: str | None = None,
    orphans: bool = False,
    wait: bool = False,
    report: Report = lambda step: None,
    **settings: Any,
) -> list[str]:
    """Bring foreign models into a zoo, every epoch with its metrics, weights bit for bit.

    Importing again skips what is there and goes on where an interrupted import stopped. No more
    than one checkpoint is in memory at a time.

    Args:
        source: the folder or file to import.
        zoo: where to; made if it is not there.
        importer: the format, see `vitarium plugins importer`; None: the one that recognises it.
        orphans: import models whose parent is not to be found, without it, instead of an error.
        wait: until another process that writes into the zoo is done, instead of giving up.
        report: is told of every epoch and model.
        settings: of the importer.

    Returns the ids, parents first. Raises UnknownName, InvalidConfig and InvalidInput before
    anything is written; ZooInUse; UntrustedFile, CorruptFile and IncompatibleWeights for weights
    that are not to be had, with what came before them in the zoo.
    """
    found = find_models(source, importer=importer, **settings)
    return bring(found, zoo, orphans=orphans, wait=wait, report=report)


def find_models(source: str | Path, *, importer: str | None = None, **settings: Any) -> Found:
    """What `import_zoo` would import.

    Raises UnknownName, InvalidConfig, InvalidInput and NotReadable.
    """
    place = Path(source)
    with reading(place):
        if place.is_dir():
            files.listed(place)
        name = importer or _recognised(place)
        chosen = registry.choose("importer", name, **settings)
        models = parents_first(map(_with_encodable_names, chosen(place)))
    for model in models:
        _imported(name, model, "")  # what is wrong with one is found before any is written
    whole = tuple(model for model in models if _last(model))
    if not whole:
        why = "there is no model with weights in it" if place.exists() else "it does not exist"
        raise InvalidInput(f"{place} cannot be imported as {name}: {why}")
    return Found(name, place, whole, tuple(model for model in models if not _last(model)))


def bring(
    found: Found,
    zoo: str | Path | Zoo,
    *,
    orphans: bool = False,
    wait: bool = False,
    report: Report = lambda step: None,
) -> list[str]:
    """Bring what `find_models` found into a zoo; see `import_zoo`."""
    here = {model.name for model in found.models}
    outside = {m.parent: m.name for m in found.models if m.parent and m.parent not in here}
    known = _known(zoo, found.importer) if outside else {}
    if not orphans:
        _check_parents(
            found, {parent: outside[parent] for parent in outside if parent not in known}
        )
    opened = zoo if isinstance(zoo, Zoo) else Zoo.create(zoo)
    ids: dict[str, str] = {}
    with held(opened.path, wait=wait):
        for model in found.models:
            parent = {**known, **ids}.get(model.parent or "")
            ids[model.name] = _bring(found.importer, model, parent, opened, report)
    opened.models()  # leaves the index up to date
    return list(ids.values())


def fingerprint(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 (hexadecimal) over names, dtypes, shapes and bytes, in order of the names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def parents_first(models: Iterable[ForeignModel]) -> list[ForeignModel]:
    """The models in an order in which each stands after its parent, else as they come.

    Raises InvalidInput for two of one name, and for models that descend from themselves.
    """
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
        for model in ready:
            ordered.append(waiting.pop(model.name))
    return ordered


def _with_encodable_names(model: ForeignModel) -> ForeignModel:
    """The model with names that UTF-8 can encode: file names, and JSON, may contain others."""
    texts = ("name", "stage", "parent", "settings", "classes", "where", "notes")
    return replace(model, **{name: encodable(getattr(model, name)) for name in texts})


def _recognised(source: Path) -> str:
    """The one importer that knows the format."""
    known = registry.plugins("importer").values()
    names = [plugin.name for plugin in known if plugin.facts["detects"](source)]
    if len(names) == 1:
        return names[0]
    if names:
        raise InvalidInput(
            f"{source} may be of several formats: {', '.join(names)}; name one with --from"
        )
    formats = "".join(f"\n  {plugin.name}: {plugin.summary}" for plugin in known)
    if not source.exists():
        raise InvalidInput(f"{source} does not exist")
    raise InvalidInput(
        f"{source} is of no format that is known; if it is one of these, name it with --from:"
        + formats
    )


def _known(zoo: str | Path | Zoo, importer: str) -> dict[str, str]:
    """Name -> id of what the same importer brought into the zoo before."""
    opened = zoo
    if not isinstance(opened, Zoo):
        if not files.exists(Path(opened) / "zoo.json"):
            return {}
        opened = Zoo.open(opened)
    specs = map(opened.spec, opened.ids())
    return {
        spec.imported.name: spec.id
        for spec in specs
        # what was merged of imported models has the origin of one of them
        if isinstance(spec, ImportedSpec) and not spec.operator and spec.imported.source == importer
    }


def _check_parents(found: Found, missing: Mapping[str, str]) -> None:
    for parent, child in missing.items():
        raise InvalidInput(
            f"{child} descends from {parent}, which is neither in {found.source} nor in the zoo; "
            "import it first, or let such models have no parent with --orphans"
        )


def _bring(importer: str, model: ForeignModel, parent: str | None, zoo: Zoo, report: Report) -> str:
    """Bring what is missing of one model; gives its id."""
    spec = _spec(importer, model, parent, zoo)
    folder, fitting = zoo.folder(spec.id), _shapes(spec.imported, model)
    if folder.exists:
        folder.sweep()
    else:
        folder.begin(spec, About(model.num_outputs, model.classes, {}))
    there = {epoch.number for epoch in folder.epochs()}
    complete = folder.result() is not None
    for epoch in model.epochs:
        new = not complete and epoch.number not in there
        if new:
            weights = _read(model, epoch, fitting) if epoch.load else None
            folder.commit(epoch.number, epoch.metrics, weights, None)
        report(Step(model, spec.id, epoch.number, new))
    if model.finished and not complete:
        folder.finish("finished")
    report(Step(model, spec.id, None, not complete and len(there) < len(model.epochs)))
    return spec.id


def _last(model: ForeignModel) -> ForeignEpoch | None:
    """The last epoch of which there are weights."""
    return next((epoch for epoch in reversed(model.epochs) if epoch.load), None)


def _spec(importer: str, model: ForeignModel, parent: str | None, zoo: Zoo) -> ImportedSpec:
    last = _last(model)
    assert last  # find_models leaves out the others
    parent_epoch = model.parent_epoch if parent else None
    if parent and parent_epoch is None:
        parent_epoch, _ = zoo.folder(parent).checkpoint()
    imported = _imported(importer, model, fingerprint(_read(model, last, None)))
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
    }
    try:
        return Imported.read(values)
    except InvalidConfig as error:
        raise InvalidConfig(error.problems, f"{model.named} cannot be imported:") from None


def _shapes(imported: Imported, model: ForeignModel) -> dict[str, torch.Size] | None:
    """Names and shapes that the architecture has; None where nothing here builds it."""
    if imported.architecture is None:
        return None
    with torch.device("meta"):
        built = imported.build(model.num_outputs)
    return {name: tensor.shape for name, tensor in built.state_dict().items()}


def _read(
    model: ForeignModel, epoch: ForeignEpoch, fitting: Mapping[str, torch.Size] | None
) -> dict[str, Tensor]:
    """An epoch's weights, each tensor with memory of its own, as they are stored in a zoo."""
    assert epoch.load
    weights = epoch.load()
    for fault in _misfits(weights, fitting) if fitting is not None else ():
        raise IncompatibleWeights(
            f"{model.named}, epoch {epoch.number}: these weights do not fit the architecture that "
            f"it is said to have: {fault}"
        )
    return dict(_unshared(weights))


def _misfits(weights: Mapping[str, Tensor], fitting: Mapping[str, torch.Size]) -> Iterator[str]:
    missing, more = fitting.keys() - weights.keys(), weights.keys() - fitting.keys()
    if missing:
        yield f"{_some(missing)} missing"
    if more:
        yield f"{_some(more)} unknown"
    for name in sorted(fitting.keys() & weights.keys()):
        if weights[name].shape != fitting[name]:
            yield f"{name} is {list(weights[name].shape)}, not {list(fitting[name])}"


def _some(names: Iterable[str], most: int = 3) -> str:
    listed = sorted(names)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" * (len(listed) > most))


def _unshared(weights: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Tied tensors share memory in a pickle, but safetensors writes each by itself."""
    seen: set[int] = set()
    for name, tensor in weights.items():
        storage = tensor.untyped_storage().data_ptr()
        yield name, tensor.clone() if storage in seen else tensor
        seen.add(storage)
