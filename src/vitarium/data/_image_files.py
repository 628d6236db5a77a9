"""Images as files have them: every kind of pixel in its range, upright, in three colors."""

import os
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from vitarium.core.errors import InvalidData

if TYPE_CHECKING:
    from PIL import Image

RULES = b"2"
"""Changes with what `decoded` makes of an image, so that what was kept before is made anew."""
EXTENSIONS = ("jpg", "jpeg", "png", "ppm", "bmp", "pgm", "tif", "tiff", "webp")
"""Of image files; torchvision's."""
_FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF")
"""What Pillow may open. It knows more, some of which it has other programs decode."""
_SYSTEM = ("__MACOSX", "__pycache__", "@eaDir", "$RECYCLE.BIN", "lost+found")
"""Folders that programs make by themselves, beside those that begin with a dot."""


def decoded(image: "str | bytes | Image.Image", name: str) -> Tensor:
    """A file's path or content, or Pillow's image -> uint8 [3, h, w], turned as EXIF says.

    Gray of 16 bits is scaled to 8 by its range; floating-point pixels have to be in [0, 1].
    Palettes, gray, CMYK and two colors become RGB, and transparency is dropped, as by Pillow's
    `convert("RGB")`, which torchvision uses. Raises InvalidData that calls the image by `name`.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        if isinstance(image, Image.Image):
            return _rgb(image, name)
        file = BytesIO(image) if isinstance(image, bytes) else image
        with Image.open(file, formats=_FORMATS) as opened:
            return _rgb(opened, name)
    except UnidentifiedImageError:
        known = ", ".join(_FORMATS)
        raise InvalidData(f"{name} cannot be decoded: it is none of {known}") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InvalidData(f"{name} cannot be decoded: {error}") from None


def _rgb(image: "Image.Image", name: str) -> Tensor:
    from PIL import ImageOps
    from torchvision.transforms.v2.functional import pil_to_tensor

    # In place, and converted only where it has to be: each copy takes a tenth of decoding's time.
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _gray(np.asarray(image), image.mode, image.format, name)
    if image.mode in ("La", "RGBa"):  # colors that are multiplied by their opacity
        image = image.convert(image.mode.upper())
    return pil_to_tensor(image if image.mode == "RGB" else image.convert("RGB"))


def visible_folders(folder: Path) -> list[str]:
    """Names of the folders in a folder, in order; none that is hidden or a program's own."""
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.is_dir() and _is_visible(e.name))


def image_files(folder: Path) -> list[str]:
    """Paths of all image files below a folder, in torchvision's order, but for hidden ones."""
    suffixes = tuple(f".{extension}" for extension in EXTENSIONS)
    return [
        f"{root}{os.sep}{name}"
        for root, names in sorted(_walk(folder))
        for name in sorted(names)
        if name.lower().endswith(suffixes) and not name.startswith(".")
    ]


def _walk(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Raises InvalidData for a link to a folder that it lies in: images would be of other classes,
    and come again and again."""
    for root, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if _is_visible(name)]
        for link in (path for name in folders if (path := Path(root, name)).is_symlink()):
            if Path(os.path.realpath(root)).is_relative_to(os.path.realpath(link)):
                raise InvalidData(f"{link} is a link to a folder that it lies in; remove it")
        yield root, names


def _is_visible(name: str) -> bool:
    return not name.startswith(".") and name not in _SYSTEM


def _gray(pixels: np.ndarray, mode: str, format: str | None, name: str) -> Tensor:
    """Pixels [h, w] -> uint8 [3, h, w]. Raises InvalidData for what has no known range."""
    if mode == "F":
        low, high = float(pixels.min()), float(pixels.max())
        if not (low >= 0 and high <= 1):  # NaN, too
            raise InvalidData(
                f"{name} has floating-point pixels from {low:g} to {high:g}; scale them to [0, 1]"
            )
        scaled = pixels.astype(np.float64) * 255
    elif mode == "I" and format not in ("PNG", "PPM"):  # of these, Pillow gives 16 bits in 32
        raise InvalidData(f"{name} has integers of 32 bits; save it with 16 or 8 bits a pixel")
    else:
        scaled = pixels.astype(np.float64) / 257
    gray = torch.from_numpy(np.rint(scaled).astype(np.uint8))
    return gray.expand(3, *gray.shape)
