"""Models of a zoo from which a stage of a blueprint starts."""

from pathlib import Path

from vitarium.blueprint.parents import Find, Parent
from vitarium.blueprint.stage import Start
from vitarium.core.errors import InvalidInput
from vitarium.zoo import Zoo
from vitarium.zoo.listing import select


def parents_in(folder: Zoo | str | Path) -> Find:
    """What finds them; the zoo is opened when something is asked for."""

    def find(start: Start) -> list[Parent]:
        """Raises NotAZoo, UnknownName, InvalidInput and CorruptFile."""
        zoo = Zoo.open(folder)
        parents = []
        for name in select(zoo, start.models or None, start.where):
            if "@" in name:
                ref = zoo.at(name)
                parents.append(Parent(ref.model, zoo.spec(ref.model).origin, (ref.epoch,)))
                continue
            id = zoo.find(name)
            model = zoo.folder(id)
            epochs = tuple(epoch.number for epoch in model.epochs() if epoch.checkpoint)
            if model.status != "finished" or not epochs:
                status = f"model {id} of the zoo is {model.status}"
                raise InvalidInput(f"{status}: nothing can start from it")
            parents.append(Parent(id, model.spec().origin, epochs))
        return parents

    return find
