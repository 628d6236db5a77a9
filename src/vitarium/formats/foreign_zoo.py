"""Models of someone else, found in a folder or file; nothing is written yet."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vitarium.blueprint import Imported, ImportedSpec
from vitarium.core import files, registry
from vitarium.core.config import InvalidConfig
from vitarium.core.errors import InvalidInput
from vitarium.core.file_faults import reading
from vitarium.core.filenames import user_path
from vitarium.core.parameters import parameter
from vitarium.core.printable import encodable
from vitarium.core.progress import SILENT
from vitarium.formats._weight_checks import check_weights, read_epoch
from vitarium.formats.base import ForeignEpoch, ForeignModel
from vitarium.formats.weights import fingerprint
from vitarium.zoo import Zoo

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

    def renamed(self, name: str) -> "ForeignZoo":
        """With another name for its only model; as it is where there are several."""
        if len(self.models) != 1:
            return self
        return replace(self, models=(replace(self.models[0], name=name),))


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
    name = importer or recognized_importer(path, has_table=settings.get("table") is not None)
    with reading(path):
        section = registry.choose("importer", name, **settings)
        models = parents_first(  # names that UTF-8 can encode: files and JSON may have others
            _with_fitting_classes(
                replace(model, **{name: encodable(getattr(model, name)) for name in _TEXTS})
            )
            for model in section(path, *_zoos(section, zoo))
        )
    for model in models:
        imported_as(name, model, "")  # what is wrong with one is found before any is written
    with_weights = tuple(model for model in models if last_with_weights(model))
    if not with_weights:
        why = "there is no model with weights in it" if path.exists() else "it does not exist"
        raise InvalidInput(f"{path} cannot be imported as {name}: {why}")
    empty = tuple(model for model in models if not last_with_weights(model))
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


def recognized_importer(source: str | Path, *, has_table: bool = False) -> str:
    """The one importer whose format it is; a table makes it that of tables, whatever else is there.

    Raises InvalidInput where there is none, or several, and NotReadable.
    """
    path = user_path(source)
    with reading(path):
        if path.is_dir():
            files.listed(path)
        return _recognized(path, has_table)


def _recognized(source: Path, has_table: bool) -> str:
    plugins = registry.plugins("importer").values()
    if has_table and source.exists():
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


def last_with_weights(model: ForeignModel) -> ForeignEpoch | None:
    """The last epoch of which weights were kept."""
    return next((epoch for epoch in reversed(model.epochs) if epoch.load), None)


def spec_of_one(foreign: ForeignZoo) -> ImportedSpec:
    """What the only model of a foreign zoo will be; its weights are read.

    Raises InvalidInput for one that descends from another foreign model, and as reading does.
    """
    (model,) = foreign.models
    if model.parent:
        raise InvalidInput(f"{model.named} descends from another model; import both first")
    check_weights(foreign.models, SILENT)
    last = last_with_weights(model)
    assert last  # find_models leaves out the others
    weights = fingerprint(read_epoch(model, last, None))
    base, epoch = model.base or (None, None)
    imported = imported_as(foreign.importer, model, weights)
    return ImportedSpec(stage=model.stage, parent=base, parent_epoch=epoch, imported=imported)


def imported_as(importer: str, model: ForeignModel, weights: str) -> Imported:
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
