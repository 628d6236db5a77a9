"""Shares of images."""

from torch import Tensor


def share(which: Tensor) -> float:
    """Mean of a bool tensor [n], in [0, 1]."""
    return float(which.double().mean())
