"""AugMix."""

import torch
from pydantic import Field, PositiveFloat
from scipy.special import betaincinv, gammaincinv
from torch import Tensor

from vitarium.core.config import Config
from vitarium.data._to_device import to_device
from vitarium.data.augmentations.policies._operations import (
    apply_operations,
    bin_magnitudes,
    signed,
    space,
)
from vitarium.data.augmentations.policies.base import Policy, policy

_LAST_BIN = 9
_DEEPEST = 3
_SPACE = space(shear=0.3, translate=1 / 3, rotate=30, enhance=0.9, posterize=4)[1:]


class AugMix(Config):
    severity: int = Field(3, ge=1, le=_LAST_BIN + 1)
    """Magnitudes are drawn from so many of the 10, the smallest first."""
    width: int = Field(3, ge=1, le=2**8)
    """Number of chains of operations that are mixed."""
    depth: int = Field(0, ge=0, le=_DEEPEST)
    """Number of operations in each chain; 0: drawn from 1 to 3."""
    alpha: PositiveFloat = 1.0
    """Parameter of the Dirichlet and Beta distributions of the shares."""


@policy("augmix", title="AugMix", paper="Hendrycks et al. 2020, arXiv 1912.02781")
def augmix(config: AugMix) -> Policy:
    """AugMix: the image mixed with chains of random operations on it (no consistency loss)."""
    of_chain = 1 + 3 * _DEEPEST

    def apply(images: Tensor, numbers: Tensor) -> Tensor:
        mixing, chains = numbers.split((1 + config.width, config.width * of_chain), dim=1)
        share = torch.from_numpy(
            betaincinv(config.alpha, config.alpha, mixing[:, :1].contiguous().numpy())
        )
        gammas = torch.from_numpy(gammaincinv(config.alpha, mixing[:, 1:].contiguous().numpy()))
        weights = share * gammas / gammas.sum(1, keepdim=True)
        mixed = _factor(images, 1 - share[:, 0]) * images
        for number, drawn in enumerate(chains.unflatten(1, (config.width, of_chain)).unbind(1)):
            mixed = mixed + _factor(images, weights[:, number]) * _chain(config, images, drawn)
        return mixed.clamp(0, 1)

    return Policy(1 + config.width * (1 + of_chain), apply)


def _chain(config: AugMix, images: Tensor, numbers: Tensor) -> Tensor:
    depth = (numbers[:, 0] * _DEEPEST).long() + 1
    if config.depth:
        depth = depth.new_full((len(depth),), config.depth)
    for step, drawn in enumerate(numbers[:, 1:].unflatten(1, (_DEEPEST, 3)).unbind(1)):
        operations = (drawn[:, 0] * len(_SPACE)).long()
        bins = (drawn[:, 1] * config.severity).long()
        magnitudes = bin_magnitudes(_SPACE, operations, bins, _LAST_BIN)
        magnitudes = signed(_SPACE, operations, magnitudes, drawn[:, 2])
        operations = torch.where(step < depth, operations, -1)  # no operation has this number
        images = apply_operations(_SPACE, images, operations, magnitudes)
    return images


def _factor(images: Tensor, values: Tensor) -> Tensor:
    return to_device(values.to(images.dtype), images.device).view(-1, 1, 1, 1)
