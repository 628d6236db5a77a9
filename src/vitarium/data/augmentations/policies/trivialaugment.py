"""TrivialAugment."""

from typing import Literal

from torch import Tensor

from vitarium.core.config import Config
from vitarium.data.augmentations.policies._operations import (
    Range,
    Space,
    apply_operations,
    bin_magnitudes,
    signed,
    space,
)
from vitarium.data.augmentations.policies.base import Policy, policy

_LAST_BIN = 30
_WIDE_PIXELS = 32


class TrivialAugment(Config):
    translate: Literal["pixels", "share"] = "pixels"
    """Largest translation: 32 pixels, as in the paper, or a seventh of the image, as 32 of 224."""


@policy("trivialaugment", title="TrivialAugment", paper="Müller and Hutter 2021, arXiv 2103.10158")
def trivialaugment(config: TrivialAugment) -> Policy:
    """TrivialAugment: one operation of a random magnitude, from the wide space."""

    def apply(images: Tensor, numbers: Tensor) -> Tensor:
        wide = _space(config, *images.shape[-2:])
        operations, bins = (numbers[:, 0] * len(wide)).long(), (numbers[:, 1] * 31).long()
        magnitudes = bin_magnitudes(wide, operations, bins, _LAST_BIN)
        magnitudes = signed(wide, operations, magnitudes, numbers[:, 2])
        return apply_operations(wide, images, operations, magnitudes)

    return Policy(3, apply)


def _space(config: TrivialAugment, height: int, width: int) -> Space:
    shares = {"translate_x": _WIDE_PIXELS / width, "translate_y": _WIDE_PIXELS / height}
    if config.translate == "share":
        shares = dict.fromkeys(shares, 1 / 7)
    usual = space(shear=0.99, translate=0, rotate=135, enhance=0.99, posterize=2)
    return tuple((n, Range(0, shares[n]) if n in shares else span) for n, span in usual)
