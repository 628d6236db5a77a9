"""The contract of policies, which choose operations for each image of a batch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor

from vitarium.core.registry import contract, register


@dataclass(frozen=True)
class Policy:
    """What a policy does to a batch.

    numbers: how many numbers, uniform in [0, 1), each image is given: float64 [n, numbers].
    apply: images [n, c, h, w] in [0, 1] and their numbers -> images of the same shape and range.
    """

    numbers: int
    apply: Callable[[Tensor, Tensor], Tensor]


MakePolicy = TypeVar("MakePolicy", bound=Callable[[Any], Policy])


@contract
def policy(
    name: str, *, title: str, paper: str = "", tiny: Mapping[str, Any] | None = None
) -> Callable[[MakePolicy], MakePolicy]:
    """Register a policy: a function `(config) -> Policy`, a setting of an augmentation.

    It draws nothing: what becomes of an image depends on the image and its numbers alone, so it is
    the same in any batch and on any device.

    Args:
        title: what the method is called, e.g. "RandAugment".
        paper: authors, year and arXiv number, or an address.
        tiny: settings for the contract tests; None: the defaults.

    `vitarium.testing.check_policy(name)` tests all of it.
    """
    return register("policy", **locals())
