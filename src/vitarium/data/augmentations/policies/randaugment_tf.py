"""RandAugment on TensorFlow's scale of magnitudes, which AugReg's recipes mean."""

import torch
from pydantic import Field
from torch import Tensor

from vitarium.core.config import Config
from vitarium.data._to_device import to_device
from vitarium.data.augmentations.policies._operations import OPERATIONS
from vitarium.data.augmentations.policies.base import Policy, policy

_GRAY = 128 / 255
"""Of pixels where nothing was: of moved images, and of what is cut out."""
_MOVING = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
_OPERATIONS = (
    "autocontrast",
    "equalize",
    "invert",
    "posterize",
    "solarize",
    "color",
    "contrast",
    "brightness",
    "sharpness",
    *_MOVING,
    "cutout",
    "solarize_add",
)
_NUMBERS = 4
"""Which operation, its direction, and the place of what is cut out."""


class RandAugmentTf(Config):
    num_ops: int = Field(2, ge=1, le=2**8)
    """Number of operations on each image, one after the other (layers)."""
    magnitude: float = Field(10, ge=0, le=30)
    """Magnitude of all operations; 10 is the largest of AutoAugment, and more goes further."""


@policy("randaugment_tf", title="RandAugment (TF)", paper="Cubuk et al. 2020, arXiv 1909.13719")
def randaugment_tf(config: RandAugmentTf) -> Policy:
    """RandAugment, of 16 operations on TensorFlow's scale: magnitude 10 rotates by 30 degrees.

    As in google-research/big_vision (`pp/autoaugment.py`), where every chosen operation is applied
    (the probability that is drawn there is never used); pixels there are shares of a side of 224.
    Posterizing keeps 0 bits below magnitude 2.5, so that the image is black, and all 8 from 20 on.
    """
    plain = _plain_magnitudes(config.magnitude)

    def apply(images: Tensor, numbers: Tensor) -> Tensor:
        for drawn in numbers.unflatten(1, (config.num_ops, _NUMBERS)).unbind(1):
            images = _layer(images, drawn, plain)
        return images

    return Policy(_NUMBERS * config.num_ops, apply)


def _plain_magnitudes(magnitude: float) -> dict[str, float]:
    """By operation, without direction: degrees, tangents, shares of a side, shares of 255, bits;
    and what factors of 0.1 + 1.8 * magnitude / 10 differ from 1 by."""
    share = magnitude / 10
    return {
        "rotate": 30 * share,
        **dict.fromkeys(("shear_x", "shear_y"), 0.3 * share),
        **dict.fromkeys(("translate_x", "translate_y"), 100 / 224 * share),
        "posterize": float(min(int(4 * share), 8)),
        "solarize": int(256 * share) / 255,
        "solarize_add": int(110 * share) / 255,
        "cutout": int(40 * share) / 224,
        **dict.fromkeys(("color", "contrast", "brightness", "sharpness"), 1.8 * share - 0.9),
    }


def _layer(images: Tensor, drawn: Tensor, plain: dict[str, float]) -> Tensor:
    """One operation on each image: [n, c, h, w] by numbers [n, 4]."""
    operations = (drawn[:, 0] * len(_OPERATIONS)).long()
    signs = torch.where(drawn[:, 1] < 0.5, -1.0, 1.0).double()
    images = images.clone()
    for number, name in enumerate(_OPERATIONS):
        which = (operations == number).nonzero().squeeze(1)
        if not len(which):
            continue
        chosen = to_device(which, images.device)
        magnitudes = torch.full((len(which),), plain.get(name, 0.0), dtype=torch.float64)
        if name in _MOVING:
            moved = OPERATIONS[name](images[chosen] - _GRAY, magnitudes * signs[which])
            images[chosen] = moved + _GRAY
        elif name == "cutout":
            images[chosen] = cut_out(images[chosen], plain[name], drawn[which, 2:])
        elif name == "solarize_add":
            images[chosen] = solarize_add(images[chosen], plain[name])
        else:
            images[chosen] = OPERATIONS[name](images[chosen], magnitudes)
    return images


def solarize_add(images: Tensor, addition: float) -> Tensor:
    """Brighten pixels below 128 of 255: [...] in [0, 1] -> the same"""
    return torch.where(images < _GRAY, (images + addition).clamp(0, 1), images)


def cut_out(images: Tensor, reach: float, centers: Tensor) -> Tensor:
    """Gray squares that reach so far from their centers, as a share of the width.

    images [n, c, h, w], centers [n, 2] in [0, 1) -> [n, c, h, w]
    """
    inside = []
    for axis, size in enumerate(images.shape[-2:]):
        pixels = round(reach * images.shape[-1])
        center = (centers[:, axis : axis + 1] * size).floor()
        pixel_numbers = torch.arange(size, dtype=torch.float64)
        inside.append((pixel_numbers >= center - pixels) & (pixel_numbers < center + pixels))
    squares = to_device(inside[0].unsqueeze(2) & inside[1].unsqueeze(1), images.device)
    return images.masked_fill(squares.unsqueeze(1), _GRAY)
