"""How images are prepared, as a preprocessor_config.json has it."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from vitarium.core.errors import InvalidInput
from vitarium.data.preprocessing import Preprocessing
from vitarium.formats._foreign_json import ForeignJson, Number, Positive, Size

RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
"""PIL's numbers."""
_SQUARED_BY = ("ViT", "DeiT", "Beit", "Siglip", "Swin")
"""Processors of which a `size` that is a number is both sides of a square; with all others it is
the shorter one."""


class _Sides(ForeignJson):
    height: Size | None = None
    width: Size | None = None
    shortest_edge: Size | None = None


class ImageProcessor(ForeignJson):
    """What is used of the file."""

    image_processor_type: str | None = None
    feature_extractor_type: str | None = None
    do_resize: bool | None = None
    size: _Sides | Size | None = None
    resample: Annotated[int, Field(ge=0, le=5)] | None = None
    do_center_crop: bool | None = None
    crop_size: _Sides | Size | None = None
    crop_pct: Annotated[float, Field(gt=0, le=1)] | None = None
    do_rescale: bool | None = None
    rescale_factor: Positive | None = None
    do_normalize: bool | None = None
    image_mean: list[Number] | Number | None = None
    image_std: list[Positive] | Positive | None = None


def preparation(file: Path, channels: int, img_size: int) -> dict[str, Any]:
    """Our settings where there is a word for it, else the file's: `preprocessing.NAME`. Nothing
    where there is no file. Raises InvalidInput that names file and key."""
    if not file.is_file():
        return {}
    processor = ImageProcessor.read(file)
    settings = _normalization(processor, channels, file) | _resizing(processor, img_size)
    if processor.resample is not None:
        settings["augmentation.interpolation"] = RESAMPLE[processor.resample]
    for key in _KEPT:
        value = getattr(processor, key)
        if value is not None and value != _USUAL.get(key):
            settings[f"preprocessing.{key}"] = value
    return settings


_KEPT = ("do_resize", "do_rescale", "rescale_factor", "crop_pct")
_USUAL = {"do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255}


def processor_config(inputs: Preprocessing, words: Mapping[str, Any]) -> dict[str, Any]:
    """The image processor that resizes the shorter side and crops the middle, as scoring does; with
    the settings of `preparation` that are among these words, as they were read.

    Of what `crop_pct` says, the size is given, too: this kind of processor knows none. Raises
    InvalidInput for words that make no sense.
    """
    channels, height, width = inputs.input_size
    resampling = {name: number for number, name in RESAMPLE.items()}
    values = {key: words[name] for key in _KEPT if (name := f"preprocessing.{key}") in words}
    values["crop_size"] = _named_sides(words.get("preprocessing.crop_size") or [height, width])
    values["do_center_crop"] = words.get("preprocessing.do_center_crop", True)
    values |= _size(inputs, words)
    processor = ImageProcessor.parse(values, Path("preprocessor_config.json"))
    factor = 255 * _factor(processor.do_rescale, processor.rescale_factor)
    return {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": channels == 3,
        **_USUAL,
        "resample": resampling[inputs.interpolation],
        **values,
        "do_normalize": True,
        "image_mean": [_multiplied(value, factor) for value in inputs.mean or ()],
        "image_std": [_multiplied(value, factor) for value in inputs.std or ()],
    }


def _size(inputs: Preprocessing, words: Mapping[str, Any]) -> dict[str, Any]:
    """Of images that are not resized, that which the file has all the same."""
    resize = inputs.resize
    if resize is None:
        resize = words.get("augmentation.resize") or words.get("preprocessing.size")
    if resize is None:
        return {}
    if isinstance(resize, int):
        return {"size": {"shortest_edge": resize}}
    return {"size": _named_sides(list(resize) if isinstance(resize, tuple) else resize)}


def _named_sides(sides: Any) -> Any:
    """[height, width] as the file has it; what is no such list stays."""
    if isinstance(sides, list) and len(sides) == 2:
        return {"height": sides[0], "width": sides[1]}
    return sides


def _multiplied(value: float, by: float) -> float:
    """The number that divided again is the same."""
    product = value * by
    near = (product, math.nextafter(product, -math.inf), math.nextafter(product, math.inf))
    return next((number for number in near if number / by == value), product)


def _factor(do_rescale: bool | None, rescale_factor: float | None) -> float:
    """That pixels from 0 to 255 are multiplied by."""
    return 1.0 if do_rescale is False else rescale_factor or 1 / 255


def _normalization(processor: ImageProcessor, channels: int, file: Path) -> dict[str, Any]:
    """Of the pixels in [0, 1], whatever they are multiplied by there."""
    factor = _factor(processor.do_rescale, processor.rescale_factor)
    if processor.do_normalize is False:
        mean, std = [0.0] * channels, [1.0] * channels
    elif processor.image_mean is None or processor.image_std is None:
        return {}
    else:
        mean = _per_channel(processor.image_mean, channels, f"{file}: image_mean")
        std = _per_channel(processor.image_std, channels, f"{file}: image_std")
    if factor != 1 / 255:
        mean, std = ([value / (255 * factor) for value in values] for values in (mean, std))
    return {"data.mean": mean, "data.std": std}


def _per_channel(value: list[float] | float, channels: int, what: str) -> list[float]:
    values = value if isinstance(value, list) else [value] * channels
    if len(values) not in (1, channels):
        raise InvalidInput(f"{what}: has {len(values)} numbers for images of {channels} channels")
    return [float(number) for number in values] * (channels // len(values))


def _resizing(processor: ImageProcessor, img_size: int) -> dict[str, Any]:
    """The shorter side, or `preprocessing.size`, [height, width], to which an image is squashed;
    and a crop that is not that of the model's own size."""
    settings: dict[str, Any] = {}
    kind = processor.image_processor_type or processor.feature_extractor_type or ""
    size = _sides(processor.size, square=kind.startswith(_SQUARED_BY))
    if isinstance(size, int) and processor.crop_pct is None:
        settings["augmentation.resize"] = size
        if processor.do_center_crop is False:
            settings["preprocessing.do_center_crop"] = False
    elif isinstance(size, list):
        settings["preprocessing.size"] = size
    crop = _sides(processor.crop_size, square=True)
    if processor.do_center_crop and crop is not None and crop != [img_size, img_size]:
        settings["preprocessing.crop_size"] = crop
    return settings


def _sides(size: _Sides | int | None, *, square: bool) -> int | list[int] | None:
    """[height, width], or the shorter side alone."""
    if isinstance(size, int):
        return [size, size] if square else size
    if size and size.height and size.width:
        return [size.height, size.width]
    return size.shortest_edge if size else None
