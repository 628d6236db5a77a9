"""3-Augment of DeiT III."""

from pydantic import PositiveFloat
from torch import Tensor

from vitarium.core.config import Config
from vitarium.data.augmentations._color import apply_randomly, blurred
from vitarium.data.augmentations.base import channels
from vitarium.data.augmentations.policies.base import Policy, policy

_SMALLEST_SIGMA = 0.1
_THRESHOLD = 0.5


class ThreeAugment(Config):
    largest_sigma: PositiveFloat = 2.0
    """Largest sigma of the blur, in pixels; drawn from 0.1 on."""


@policy("three_augment", title="3-Augment", paper="Touvron et al. 2022, arXiv 2204.07118, Sec. 3")
def three_augment(config: ThreeAugment) -> Policy:
    """3-Augment: each image is made gray, solarized or blurred, with equal probabilities.

    DeiT III has a color jitter of 0.3 and a flip beside it.
    """

    def apply(images: Tensor, numbers: Tensor) -> Tensor:
        which, sigma = numbers[:, :1], numbers[:, 1]
        sigmas = _SMALLEST_SIGMA + (config.largest_sigma - _SMALLEST_SIGMA) * sigma
        widest = 2 * min(images.shape[-2:]) - 1  # pixels beyond the border are mirrored once
        kernel = min(2 * round(4 * config.largest_sigma) + 1, widest)
        count = images.shape[1]

        def gray(chosen: Tensor, _: Tensor) -> Tensor:
            return channels(channels(chosen, 1), count)

        def solarized(chosen: Tensor, _: Tensor) -> Tensor:
            return chosen.where(chosen < _THRESHOLD, 1 - chosen)

        def blur(chosen: Tensor, places: Tensor) -> Tensor:
            return blurred(chosen, sigmas[places], kernel)

        for number, change in enumerate((gray, solarized, blur)):
            below = (which - number / 3) % 1  # below 1/3 for just these
            images = apply_randomly(images, below, 1 / 3, change)
        return images

    return Policy(2, apply)
