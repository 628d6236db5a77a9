"""Whether a recipe goes with the labels of its images, as far as these are known."""

from contextlib import suppress
from pathlib import Path

from vitarium.blueprint import Recipe
from vitarium.blueprint.label_rules import several_labels_misfits
from vitarium.core.config import Problem
from vitarium.core.errors import VitariumError
from vitarium.data.load import load


def label_problems(recipe: Recipe, data_dir: Path | None, needs_data: bool) -> list[Problem]:
    """By factor; needs_data: the data set is read where its plug-in does not say it."""
    several = recipe.data.facts.get("several_labels", False)
    if needs_data and not several:
        with suppress(VitariumError):  # said with the images
            several = load(recipe.data, data_dir).is_multilabel
    misfits = several_labels_misfits(recipe) if several else {}
    return [Problem((factor,), text) for factor, text in misfits.items()]
