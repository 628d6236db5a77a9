"""All families, by what a config.json calls the architecture."""

from pathlib import Path
from typing import Any

from vitarium.core.errors import InvalidInput
from vitarium.formats._foreign_json import ForeignJson
from vitarium.formats._transformers import beit, dinov2, dinov3, swin, towers, vit
from vitarium.formats._transformers.base import Counterpart, Family

FAMILIES: dict[str, Family] = (
    vit.FAMILIES
    | dinov2.FAMILIES
    | dinov3.FAMILIES
    | beit.FAMILIES
    | swin.FAMILIES
    | towers.FAMILIES
)
_COUNTERPARTS = (
    towers.COUNTERPARTS
    + dinov2.COUNTERPARTS
    + dinov3.COUNTERPARTS
    + vit.COUNTERPARTS
    + beit.COUNTERPARTS
    + swin.COUNTERPARTS
)
"""The first that fits is taken: the plain ViT fits most."""
_TOWERS = {
    "CLIPModel": "CLIPVisionModelWithProjection",
    "SiglipModel": "SiglipVisionModel",
}
"""Models of images and texts, and what of them can be saved by itself, and imported."""


class _Architectures(ForeignJson):
    architectures: list[str]


def architecture_name(file: Path) -> str:
    """What a config.json is of. Raises InvalidInput where it does not say."""
    names = _Architectures.read(file).architectures
    if not names:
        raise InvalidInput(f"{file}: architectures: names none")
    return names[0]


def family_of(name: str, file: Path) -> Family:
    """Raises InvalidInput that says what can be imported instead."""
    if name in FAMILIES:
        return FAMILIES[name]
    if tower := _TOWERS.get(name):
        raise InvalidInput(
            f"{file} is of a {name}, of images and texts; its image tower can be imported: save it "
            f"with transformers, {tower}.from_pretrained(FOLDER).save_pretrained(OTHER)"
        )
    raise InvalidInput(
        f"{file} is of a {name}; what can be imported: {', '.join(sorted(FAMILIES))}"
    )


def counterpart(model: Any) -> Counterpart | None:
    """What a model that was built becomes in transformers; None for a class that has none there."""
    return next((family for family in _COUNTERPARTS if family.fits(model)), None)
