"""Which images validate or test: drawn by class, and the same on every machine."""

import numpy as np
import torch
from torch import Tensor

from vitarium.core.seeds import derive


def stratified(labels: Tensor, count: int, seed: int, purpose: str) -> Tensor:
    """Numbers of `count` images, in order, with each class in proportion to within one image.

    What rounding leaves over goes to the classes that it cut most (largest remainders).
    """
    generator = np.random.default_rng(derive(seed, "split", purpose))
    classes, sizes = np.unique(labels.numpy(), return_counts=True)
    shares = count * sizes / len(labels)
    quotas = np.floor(shares).astype(int)
    most_cut = np.argsort(quotas - shares, kind="stable")
    quotas[most_cut[: count - quotas.sum()]] += 1
    chosen = [
        generator.permutation(np.flatnonzero(labels.numpy() == label))[:quota]
        for label, quota in zip(classes, quotas, strict=True)
    ]
    return torch.from_numpy(np.sort(np.concatenate(chosen)))


def without(chosen: Tensor, count: int) -> Tensor:
    """Those of the numbers below `count` that were not chosen, in order."""
    rest = torch.ones(count, dtype=torch.bool)
    rest[chosen] = False
    return rest.nonzero()[:, 0]
