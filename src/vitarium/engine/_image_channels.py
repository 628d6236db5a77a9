"""Whether a model takes the channels of a recipe's images, as far as these are here."""

from contextlib import suppress
from pathlib import Path

from vitarium.blueprint import Recipe
from vitarium.core.errors import DataNotFound
from vitarium.data.image_channels import check_channels
from vitarium.data.load import load


def check_image_channels(recipe: Recipe, data_dir: Path | None, needs_data: bool) -> None:
    """Raises InvalidData for channels that the model does not take, and what `load` raises; without
    needs_data, images are looked at only where the objective sees a second modality."""
    if not needs_data and not recipe.extra_channels:
        return
    with suppress(*([] if needs_data else [DataNotFound])):
        own = load(recipe.data, data_dir)
        check_channels(own, recipe.image_size[0], recipe.extra_channels)
