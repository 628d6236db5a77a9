"""Whether one running model can be shown images for all of its ingredients."""

import math
import warnings
from collections.abc import Mapping

from vitarium.core.errors import InvalidInput
from vitarium.data.preprocessing import Preprocessing

_HALF_A_GRAY_VALUE = 1 / 510  # to which importers round


def check_images_alike(
    operator: str, ingredients: Mapping[str, Preprocessing], purpose: str = "scores one model"
) -> None:
    """Compare how the images of ingredients, by their names, are prepared: with the first one's.

    Args:
        purpose: what the operator does on images.

    Raises InvalidInput where they are normalized in different ways, or of different sizes. A
    warning says where they are resized differently, which moves pixels and not their scale.
    """
    (first, own), *more = ingredients.items()
    for name, preprocessing in more:
        pair = (own, preprocessing)
        if own.input_size != preprocessing.input_size:
            sizes = [" x ".join(map(str, side.input_size)) for side in pair]
            raise InvalidInput(
                f"{operator} {purpose} on images, but {first} takes them of {sizes[0]} and {name} "
                f"of {sizes[1]} pixels: merge models that take images of one size, or by a method "
                "that looks at no images"
            )
        if not _are_close(*pair):
            texts = [_normalization_text(side) for side in pair]
            raise InvalidInput(
                f"{operator} {purpose} on images, but {first} takes them with {texts[0]} "
                f"and {name} with {texts[1]}: merge models that are normalized alike, or by a "
                "method that looks at no images"
            )
    resized = [name for name, preprocessing in more if _resizing(preprocessing) != _resizing(own)]
    if resized:
        warnings.warn(
            f"{operator}: images are resized as those of {first}; {', '.join(resized)} had them "
            "resized differently",
            stacklevel=2,
        )


def _are_close(first: Preprocessing, second: Preprocessing) -> bool:
    pairs = zip(_numbers(first), _numbers(second), strict=True)
    return all(math.isclose(*pair, rel_tol=0, abs_tol=_HALF_A_GRAY_VALUE) for pair in pairs)


def _numbers(preprocessing: Preprocessing) -> tuple[float, ...]:
    return (*(preprocessing.mean or ()), *(preprocessing.std or ()))


def _resizing(preprocessing: Preprocessing) -> tuple[object, ...]:
    how = (preprocessing.resize, preprocessing.interpolation, preprocessing.center_crop)
    return (*how, preprocessing.augmentation)


def _normalization_text(preprocessing: Preprocessing) -> str:
    parts = (preprocessing.mean or (), preprocessing.std or ())
    return "mean/std " + "/".join(",".join(f"{value:.4g}" for value in part) for part in parts)
