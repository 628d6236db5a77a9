"""Models of a zoo from which a stage of a blueprint starts."""

from pathlib import Path

from vitarium.blueprint.blueprint import Start
from vitarium.blueprint.plan import Find, Parent
from vitarium.core.errors import InvalidInput
from vitarium.zoo import Zoo
from vitarium.zoo.listing import listing


def parents_in(folder: str | Path) -> Find:
    """What finds them; the zoo is opened when something is asked for."""

    def find(start: Start) -> list[Parent]:
        """Raises NotAZoo, UnknownName, InvalidInput and CorruptFile."""
        zoo = Zoo.open(folder)
        if start.models:
            ids = [zoo.find(model) for model in start.models]
        else:
            ids = [row["model"] for row in listing(zoo.path, where=start.where).rows]
        if not ids:
            raise InvalidInput(f"no model of {folder} fulfills the condition {start.where}")
        return [_parent(zoo, id) for id in dict.fromkeys(ids)]

    return find


def _parent(zoo: Zoo, id: str) -> Parent:
    folder = zoo.folder(id)
    checkpoints = tuple(epoch.number for epoch in folder.epochs() if epoch.checkpoint)
    if folder.status != "finished" or not checkpoints:
        raise InvalidInput(f"model {id} of the zoo is {folder.status}: nothing can start from it")
    return Parent(id, folder.spec().origin, checkpoints)
