"""How images are prepared, as a preprocessor_config.json has it."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from vitarium.core.errors import InvalidInput
from vitarium.core.parameters import parameter
from vitarium.data._image_settings import Covering
from vitarium.data.preprocessing import Preprocessing
from vitarium.formats._foreign_json import ForeignJson, Number, Positive, Size

RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
"""PIL's numbers."""
_RESAMPLE_OF = {"nearest_exact": 0} | {name: number for number, name in RESAMPLE.items()}


class _Processor(NamedTuple):
    """What a class of image processors does where its file does not say it."""

    squares: bool
    """A `size` that is a number is both sides of a square; else the shorter one."""
    crops: bool
    resample: int


_PROCESSORS = {
    "ViT": _Processor(True, False, 2),
    "DeiT": _Processor(True, True, 3),
    "Beit": _Processor(True, False, 3),
    "DINOv3ViT": _Processor(True, False, 2),
    "Blip": _Processor(True, False, 3),
    "Bit": _Processor(False, True, 3),
    "CLIP": _Processor(False, True, 3),
    "ChineseCLIP": _Processor(False, True, 3),
    "Siglip": _Processor(False, False, 3),
    "ConvNext": _Processor(False, False, 3),
}
"""Classes that do nothing but resize, crop the middle and normalize, by the beginnings of their
names; ConvNext's by a share of its own."""
_CONVNEXT, _CONVNEXT_SHARE, _SQUASHED_FROM = "ConvNext", 224 / 256, 384
_ENDING = re.compile("(?:ImageProcessor(?:Fast|Pil)?|FeatureExtractor)$")
APPLIED_THERE = (
    "preprocessing.crop_size",
    "preprocessing.do_center_crop",
    "preprocessing.size.",
)
"""What an image processor can do and nothing here, by the beginnings of names."""
_OTHER_SIDES = ("longest_edge", "max_height", "max_width")


class _Sides(ForeignJson):
    height: Size | None = None
    width: Size | None = None
    shortest_edge: Size | None = None
    longest_edge: Size | None = None
    max_height: Size | None = None
    max_width: Size | None = None


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
    do_pad: bool | None = None
    image_mean: list[Number] | Number | None = None
    image_std: list[Positive] | Positive | None = None

    @property
    def class_name(self) -> str | None:
        return self.image_processor_type or self.feature_extractor_type

    @property
    def kind(self) -> str:
        """The beginning of its class's name; empty where the file does not name it."""
        return _ENDING.sub("", self.class_name or "")


def preparation(file: Path, channels: int, img_size: int) -> dict[str, Any]:
    """Our settings where there is a word for it, else the file's: `preprocessing.NAME`. Nothing
    where there is no file. Raises InvalidInput that names file and key.

    What makes no difference to images in color is left out: `do_convert_rgb`, and of a crop that is
    switched off its size. `do_reduce_labels` and the like are of labels.
    """
    if not file.is_file():
        return {}
    processor = ImageProcessor.read(file)
    settings = _normalization(processor, channels, file) | _resizing(processor, img_size)
    resample, kind = processor.resample, _PROCESSORS.get(processor.kind)
    if resample is None and kind and RESAMPLE[kind.resample] != "bilinear":
        resample = kind.resample
    if resample is not None:
        settings["augmentation.interpolation"] = RESAMPLE[resample]
    for key in _KEPT:
        value = getattr(processor, key)
        if value is not None and value != _USUAL.get(key):
            settings[f"preprocessing.{key}"] = value
    if processor.do_pad:
        settings["preprocessing.do_pad"] = True
    if processor.class_name and not kind:
        settings["preprocessing.image_processor_type"] = processor.class_name
    return settings


_KEPT = ("do_resize", "do_rescale", "rescale_factor")
_USUAL = {"do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255}


def processor_config(
    inputs: Preprocessing, words: Mapping[str, Any], *, given_back: bool
) -> dict[str, Any]:
    """The image processor that resizes the shorter side and crops the middle, as scoring does; with
    the settings of `preparation` that are among these words, as they were read.

    Args:
        given_back: whether the words are `preparation`'s; timm has `crop_pct`, too, which only
            ConvNext's processor knows.

    Raises InvalidInput for words that make no sense, and for images that keep their shape and cover
    a rectangle, which no processor resizes so.
    """
    channels, height, width = inputs.input_size
    values = {key: words[name] for key in _KEPT if (name := f"preprocessing.{key}") in words}
    values |= _size(inputs, words)
    if given_back and (share := words.get("preprocessing.crop_pct")) is not None:
        kind, squashed = _CONVNEXT, words.get("preprocessing.size")
        values |= {"size": {"shortest_edge": squashed[0] if squashed else height}}
        values["crop_pct"] = share
    else:
        kind = "Bit"
        values["crop_size"] = _named_sides(words.get("preprocessing.crop_size") or [height, width])
        values["do_center_crop"] = words.get("preprocessing.do_center_crop", True)
    processor = ImageProcessor.parse(values, Path("preprocessor_config.json"))
    factor = 255 * _factor(processor.do_rescale, processor.rescale_factor)
    return {
        "image_processor_type": f"{kind}ImageProcessor",
        "do_convert_rgb": channels == 3,
        **_USUAL,
        "resample": _RESAMPLE_OF[inputs.interpolation],
        **values,
        "do_normalize": True,
        "image_mean": [_multiplied(value, factor) for value in inputs.mean or ()],
        "image_std": [_multiplied(value, factor) for value in inputs.std or ()],
    }


def _size(inputs: Preprocessing, words: Mapping[str, Any]) -> dict[str, Any]:
    """Of images that are not resized, that which the file has all the same."""
    resize: Any = inputs.resize
    if isinstance(resize, Covering):
        what = f"{resize.height} and {resize.width} pixels"
        raise InvalidInput(
            f"its images keep their shape and cover {what}, and no image processor of transformers "
            f"resizes so; {parameter('exporter', 'timm')} does"
        )
    if resize is None:
        resize = words.get("augmentation.resize") or words.get("preprocessing.size")
    others = {
        name: words[key] for name in _OTHER_SIDES if (key := f"preprocessing.size.{name}") in words
    }
    if others:
        shorter = words.get("augmentation.resize")
        return {"size": others | ({"shortest_edge": shorter} if shorter else {})}
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
    if processor.kind == _CONVNEXT or (not processor.kind and processor.crop_pct is not None):
        return _convnext(processor, img_size)
    kind = _PROCESSORS.get(processor.kind)
    size = _sides(processor.size, square=bool(kind and kind.squares))
    settings: dict[str, Any] = _size_settings(processor.size, size)
    crops = processor.do_center_crop
    if crops is None and kind and isinstance(size, list):
        crops = kind.crops
    is_exact = size == [img_size, img_size] and processor.do_resize is not False
    if crops is False and not is_exact:
        settings["preprocessing.do_center_crop"] = False
    crop = _sides(processor.crop_size, square=True)
    if processor.do_center_crop and crop is not None and crop != [img_size, img_size]:
        settings["preprocessing.crop_size"] = crop
    return settings


def _size_settings(size: _Sides | int | None, sides: int | list[int] | None) -> dict[str, Any]:
    if isinstance(size, _Sides) and not isinstance(sides, list):
        others = {name: value for name in _OTHER_SIDES if (value := getattr(size, name))}
        settings = {f"preprocessing.size.{name}": value for name, value in others.items()}
    else:
        settings = {}
    if isinstance(sides, int):
        return {"augmentation.resize": sides, **settings}
    return {"preprocessing.size": sides} if sides else settings


def _convnext(processor: ImageProcessor, img_size: int) -> dict[str, Any]:
    """Below 384 pixels, a crop of a share of what was resized; from there on, a square to which
    images are squashed."""
    side = _sides(processor.size, square=False) or img_size
    share = _CONVNEXT_SHARE if processor.crop_pct is None else processor.crop_pct
    settings: dict[str, Any] = {"preprocessing.crop_pct": share}
    if isinstance(side, int) and side >= _SQUASHED_FROM:
        settings["preprocessing.size"] = [side, side]
    if side != img_size:
        settings["preprocessing.crop_size"] = side if isinstance(side, list) else [side, side]
    return settings


def _sides(size: _Sides | int | None, *, square: bool) -> int | list[int] | None:
    """[height, width], or the shorter side alone."""
    if isinstance(size, int):
        return [size, size] if square else size
    if size and size.height and size.width:
        return [size.height, size.width]
    return size.shortest_edge if size else None
