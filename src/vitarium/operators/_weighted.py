"""Settings that differ by model: weights in a merge, by how the models' ids begin."""

from vitarium.core.config import Config
from vitarium.core.errors import InvalidInput
from vitarium.operators.base import Ingredients


class Weighted(Config):
    """Base of the settings of operators in which models may count differently."""

    weights: dict[str, float] = {}
    """How much models count, by how their ids begin, `{"3f2a": 0.5}`; the others count 1."""

    def of(self, ingredients: Ingredients) -> list[float]:
        """The models' weights. Raises InvalidInput for a name that no model, or two names that one
        model has."""
        return by_model(ingredients, self.weights, 1.0)


def by_model(ingredients: Ingredients, values: dict[str, float], otherwise: float) -> list[float]:
    """What is given for each model by how its id begins, `3f2a` or `3f2a@5`."""
    fitting = [[key for key in values if _is_called(name, key)] for name in ingredients.names]
    for key in values:
        if not any(key in keys for keys in fitting):
            raise InvalidInput(f"'{key}' is none of the models {', '.join(ingredients.names)}")
    for name, keys in zip(ingredients.names, fitting, strict=True):
        if len(keys) > 1:
            raise InvalidInput(f"{name} is given {len(keys)} values: as {' and as '.join(keys)}")
    return [values[keys[0]] if keys else otherwise for keys in fitting]


def _is_called(name: str, key: str) -> bool:
    """Whether `ID@EPOCH` is meant by a beginning of the id, with or without the epoch."""
    id, _, epoch = key.partition("@")
    return name.startswith(id) and (not epoch or name.partition("@")[2] == epoch)
