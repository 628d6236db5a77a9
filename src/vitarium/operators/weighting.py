"""Settings of operators in which models may count differently."""

from vitarium.core.config import Config
from vitarium.core.errors import InvalidInput
from vitarium.operators.base import Ingredients


class Weighted(Config):
    """Base of the settings of operators in which models may count differently."""

    weights: dict[str, float] = {}
    """Weight of each model, by the first digits of its id, e.g. {"3f2a": 0.5}; models that are not
    named weigh 1."""

    def of(self, ingredients: Ingredients) -> list[float]:
        """The models' weights, which become their shares. Raises as `by_model`."""
        weights = by_model(ingredients, self.weights, 1.0)
        ingredients.share(weights)
        return weights


def by_model(ingredients: Ingredients, values: dict[str, float], otherwise: float) -> list[float]:
    """What is given for each model by how its id begins, `3f2a` or `3f2a@5`.

    Raises InvalidInput for a name that no model has, and for two names of one model.
    """
    fitting: list[list[str]] = [[] for _ in ingredients.names]
    for key in values:
        id, _, epoch = key.partition("@")
        for name, keys in zip(ingredients.names, fitting, strict=True):
            if name.startswith(id) and (not epoch or name.partition("@")[2] == epoch):
                keys.append(key)
        if not any(key in keys for keys in fitting):
            raise InvalidInput(f"'{key}' is none of the models {', '.join(ingredients.names)}")
    for name, keys in zip(ingredients.names, fitting, strict=True):
        if len(keys) > 1:
            raise InvalidInput(f"{name} is given {len(keys)} values: as {' and as '.join(keys)}")
    return [values[keys[0]] if keys else otherwise for keys in fitting]
