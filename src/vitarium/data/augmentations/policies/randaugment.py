"""RandAugment."""

from pydantic import Field
from torch import Tensor

from vitarium.core.config import Config
from vitarium.data.augmentations.policies._operations import (
    apply_operations,
    bin_magnitudes,
    signed,
    space,
)
from vitarium.data.augmentations.policies.base import Policy, policy

_LAST_BIN = 30
_SPACE = space(shear=0.3, translate=150 / 331, rotate=30, enhance=0.9, posterize=4)


class RandAugment(Config):
    num_ops: int = Field(2, ge=1, le=2**8)
    """Number of operations on each image, one after the other."""
    magnitude: int = Field(9, ge=0, le=_LAST_BIN)
    """Magnitude of all operations, from 0 to 30."""


@policy("randaugment", title="RandAugment", paper="Cubuk et al. 2020, arXiv 1909.13719")
def randaugment(config: RandAugment) -> Policy:
    """RandAugment: some operations, drawn from 14, of one magnitude (torchvision's space)."""

    def apply(images: Tensor, numbers: Tensor) -> Tensor:
        for drawn in numbers.unflatten(1, (config.num_ops, 2)).unbind(1):
            operations = (drawn[:, 0] * len(_SPACE)).long()
            bins = operations.new_full((len(operations),), config.magnitude)
            magnitudes = bin_magnitudes(_SPACE, operations, bins, _LAST_BIN)
            magnitudes = signed(_SPACE, operations, magnitudes, drawn[:, 1])
            images = apply_operations(_SPACE, images, operations, magnitudes)
        return images

    return Policy(2 * config.num_ops, apply)
