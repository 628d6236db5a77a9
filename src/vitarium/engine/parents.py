"""Models of a zoo from which a stage of a blueprint starts."""

from pathlib import Path

from vitarium.blueprint.blueprint import Start
from vitarium.blueprint.plan import Find, Parent
from vitarium.core.errors import InvalidInput
from vitarium.zoo import Zoo
from vitarium.zoo.listing import select


def parents_in(folder: Zoo | str | Path) -> Find:
    """What finds them; the zoo is opened when something is asked for."""

    def find(start: Start) -> list[Parent]:
        """Raises NotAZoo, UnknownName, InvalidInput and CorruptFile."""
        zoo = Zoo.open(folder)
        parents = []
        for id in map(zoo.find, select(zoo, start.models or None, start.where)):
            model = zoo.folder(id)
            epochs = tuple(epoch.number for epoch in model.epochs() if epoch.checkpoint)
            if model.status != "finished" or not epochs:
                status = f"model {id} of the zoo is {model.status}"
                raise InvalidInput(f"{status}: nothing can start from it")
            parents.append(Parent(id, model.spec().origin, epochs))
        return parents

    return find
