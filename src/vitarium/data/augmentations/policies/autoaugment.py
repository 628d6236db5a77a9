"""AutoAugment."""

from typing import Literal

import torch
from torch import Tensor
from torchvision.transforms.v2 import AutoAugment as TorchvisionAutoAugment
from torchvision.transforms.v2 import AutoAugmentPolicy

from vitarium.core.config import Config
from vitarium.data.augmentations.policies._operations import (
    apply_operations,
    bin_magnitudes,
    signed,
    space,
)
from vitarium.data.augmentations.policies.base import Policy, policy

_LAST_BIN = 9
_SPACE = (
    *space(shear=0.3, translate=150 / 331, rotate=30, enhance=0.9, posterize=4),
    ("invert", None),
)
_NUMBER_OF = {name.replace("_", ""): number for number, (name, _) in enumerate(_SPACE)}


class AutoAugment(Config):
    learned_on: Literal["imagenet", "cifar10", "svhn"] = "imagenet"
    """Data set on which the policy was learned."""


@policy("autoaugment", title="AutoAugment", paper="Cubuk et al. 2019, arXiv 1805.09501")
def autoaugment(config: AutoAugment) -> Policy:
    """AutoAugment: one of 25 pairs of operations with probabilities, learned on a data set."""
    table = _policies(config.learned_on)  # [25, 2, (operation, probability, bin)]

    def apply(images: Tensor, numbers: Tensor) -> Tensor:
        chosen = table[(numbers[:, 0] * len(table)).long()]
        for position, drawn in enumerate(numbers[:, 1:].unflatten(1, (2, 2)).unbind(1)):
            operations, probability, bins = chosen[:, position].unbind(1)
            happens = drawn[:, 0] <= probability
            operations = torch.where(happens, operations, 0.0).long()
            magnitudes = bin_magnitudes(_SPACE, operations, bins, _LAST_BIN)
            magnitudes = signed(_SPACE, operations, magnitudes, drawn[:, 1])
            images = apply_operations(_SPACE, images, operations, magnitudes)
        return images

    return Policy(5, apply)


def _policies(learned_on: str) -> Tensor:
    """torchvision's tables, of which it has no public form."""
    tables = TorchvisionAutoAugment(AutoAugmentPolicy(learned_on))._policies
    rows = [
        [(_NUMBER_OF[name.lower()], probability, bin or 0) for name, probability, bin in pair]
        for pair in tables
    ]
    return torch.tensor(rows, dtype=torch.float64)
