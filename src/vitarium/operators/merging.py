"""Make a model of models, and keep it in the zoo with what it is made of."""

from collections.abc import Iterable
from typing import Any

from vitarium.blueprint import Ingredient
from vitarium.errors import InvalidInput
from vitarium.operators.ingredients import Ingredients
from vitarium.registry import choose
from vitarium.store import Zoo

STAGE = "merge"


def merge(zoo: Zoo, operator: str, models: Iterable[str], **settings: Any) -> str:
    """Apply a registered operator to models of a zoo; the result is a model of the zoo.

    An operator is a function (config, ingredients) that yields (name, tensor), in the ingredients'
    shapes and dtypes; see `Ingredients.tensors`.

    Args:
        operator: its registered name.
        models: ids or beginnings of them; `ID@3` is the model after epoch 3, `ID` after its last.
        settings: of the operator.

    Returns the id of the new model; the same operator on the same models gives the same id, and is
    not computed again. Raises UnknownName, InvalidConfig, InvalidInput, IncompatibleWeights and
    CorruptFile.
    """
    chosen = choose("operator", operator, **settings)
    ingredients = tuple(_ingredient(zoo, model) for model in models)
    if not ingredients:
        raise InvalidInput(f"{operator} needs at least one model")
    first = zoo.folder(ingredients[0].model)
    spec = first.spec().combined(chosen, ingredients, stage=STAGE)
    folder = zoo.folder(spec.id)
    if not folder.result():
        weights = dict(chosen(Ingredients(zoo, ingredients)))
        folder.begin(spec, first.about())
        folder.commit(0, {}, weights, None)
        folder.finish("finished")
    return spec.id


def _ingredient(zoo: Zoo, model: str) -> Ingredient:
    id, epoch = zoo.at(model)
    return Ingredient(model=id, epoch=epoch)
