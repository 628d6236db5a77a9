"""What a stage of a blueprint starts from: models of a zoo, or of files that will be imported."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from vitarium.blueprint import ImportedSpec
from vitarium.blueprint.parents import DivergedParent, Parent
from vitarium.blueprint.stage import Start
from vitarium.core.errors import InvalidInput, NotAZoo
from vitarium.core.parameters import PythonSpelling, is_placeholder, parameter, spelled_by
from vitarium.formats.foreign_zoo import ForeignZoo, find_models, spec_of_one
from vitarium.formats.hub.download import HUB, downloaded
from vitarium.formats.import_zoo import import_zoo
from vitarium.zoo import Zoo
from vitarium.zoo.listing import select


class ZooParents:
    """Finds them; the zoo is opened when something is asked for.

    A file or folder of weights becomes a model of the zoo only by `import_missing`: till then it is
    known what it will be.
    """

    def __init__(self, folder: Zoo | str | Path | None) -> None:
        self.folder = folder
        self._foreign: dict[str, tuple[ForeignZoo, ImportedSpec]] = {}
        """By what the blueprint says of it."""

    def __call__(self, start: Start) -> list[Parent]:
        """Raises NotAZoo, UnknownName, InvalidInput and CorruptFile."""
        if start.checkpoint:
            return [self._of_file(start)]
        if self.folder is None:
            how = parameter("zoo", "DIR")
            raise InvalidInput(f"starts from models of a zoo; name it: {how}")
        zoo = Zoo.open(self.folder)
        return [_named(zoo, name) for name in select(zoo, start.models or None, start.where)]

    def import_missing(self, parents: Collection[str | None], *, wait: bool = False) -> list[str]:
        """Bring what is needed of files into the zoo; returns the ids of what is new.

        Raises as `import_zoo` does.
        """
        new: list[str] = []
        if self.folder is None:
            return new
        for foreign, spec in self._foreign.values():
            if spec.id in parents and not self._is_here(spec.id):
                new += import_zoo(foreign, self.folder, wait=wait)
        return new

    def _of_file(self, start: Start) -> Parent:
        key = repr((start.checkpoint, start.importer, start.importer_settings))
        if key not in self._foreign:
            self._foreign[key] = _read(start, self.folder)
        foreign, spec = self._foreign[key]
        if self.folder is not None and self._is_here(spec.id):
            return _named(Zoo.open(self.folder), spec.id)
        (model,) = foreign.models
        epochs = tuple(epoch.number for epoch in model.epochs if epoch.load)
        return Parent(spec.id, spec.imported, epochs, model.num_outputs)

    def _is_here(self, id: str) -> bool:
        if self.folder is None:
            return False
        try:
            return id in Zoo.open(self.folder)
        except NotAZoo:
            return False


def parents_in(folder: Zoo | str | Path | None) -> ZooParents:
    """What finds the models of a zoo, and those that will be imported into it; None: only these."""
    return ZooParents(folder)


class _StartSpelling(PythonSpelling):
    """Parameters of importers as a `start` has them: `start: {importer_settings: {base: ID}}`."""

    def parameter(self, name: str, value: Any) -> str:
        text = str(value) if is_placeholder(value) else json.dumps(value)
        if name == "importer":
            return f"start: {{importer: {text}}}"
        if name == "zoo":  # of what grows or checks the blueprint
            return super().parameter(name, value)
        for key in reversed(["importer_settings", *name.split(".")]):
            text = f"{{{key}: {text}}}"
        return f"start: {text}"

    def has_option(self, name: str) -> bool:
        return False


def _read(start: Start, zoo: Zoo | str | Path | None) -> tuple[ForeignZoo, ImportedSpec]:
    """Raises InvalidInput for what is not one model, and as `find_models`."""
    with spelled_by(_StartSpelling()):
        return _one_model(start, zoo)


def _one_model(start: Start, zoo: Zoo | str | Path | None) -> tuple[ForeignZoo, ImportedSpec]:
    name, importer = start.checkpoint, start.importer or None
    settings: dict[str, Any] = dict(start.importer_settings)
    if name.startswith(HUB):
        foreign = find_models(downloaded(name), importer=importer, zoo=zoo, **settings)
        foreign = foreign.renamed(name.removeprefix(HUB))
    else:
        try:
            foreign = find_models(name, importer=importer, zoo=zoo, **settings)
        except NotAZoo as error:  # only what changes a model of the zoo looks there
            what = f"{name} changes a model, which has to be in the zoo"
            raise InvalidInput(f"{what}, but {error}; import that model first") from error
    if len(foreign.models) != 1:
        names = ", ".join(model.name for model in foreign.models[:5])
        what = f"{name} has {len(foreign.models)} models ({names})"
        raise InvalidInput(f"{what}; name the folder or file of one, or import all of them")
    return foreign, spec_of_one(foreign)


def _named(zoo: Zoo, name: str) -> Parent:
    """A model of the zoo, or one of its checkpoints."""
    if "@" in name:
        ref = zoo.at(name)
        return Parent(ref.model, zoo.spec(ref.model).origin, (ref.epoch,))
    id = zoo.find(name)
    model = zoo.folder(id)
    epochs = tuple(epoch.number for epoch in model.epochs() if epoch.checkpoint)
    if model.status != "finished" or not epochs:
        status = f"model {id} of the zoo is {model.status}"
        kind = DivergedParent if model.status == "diverged" else InvalidInput
        raise kind(f"{status}: nothing can start from it")
    return Parent(id, model.spec().origin, epochs)
