"""Whether the classes of a recipe's evaluation sets are among those that its model learns."""

from collections.abc import Iterator
from pathlib import Path

from vitarium.blueprint import Recipe
from vitarium.core.config import Problem
from vitarium.core.errors import VitariumError
from vitarium.data.load import load, load_local
from vitarium.training._evaluation_images import classes_among


def evaluation_set_problems(
    recipe: Recipe, data_dir: Path | None, needs_data: bool
) -> Iterator[Problem]:
    """By path; otherwise than with needs_data, sets that are not on this machine are left out."""
    find = load if needs_data else load_local
    for name, chosen in recipe.evaluate_on.items():
        try:
            own, images = (find(data, data_dir) for data in (recipe.data, chosen.data))
            if own and images:
                classes_among(own, images, name)
        except VitariumError as error:
            yield Problem(("evaluate_on", name), str(error))
